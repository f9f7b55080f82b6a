/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * MSS clamping: what a SYN or SYN-ACK that passes here says its sender takes (RFC 9293 3.7.1) becomes the service's `mss` if
 * it is more, so that no segment is larger than what fits through a way that loses "fragmentation needed" (RFC 2923 2.1). It
 * is never raised, and none is put into a segment without it: what that means (536, IPv6 1220) fits everywhere.
 */
#ifndef LBNODE_CLAMP_H
#define LBNODE_CLAMP_H

#include "reshape.h"

INLINE __u16 clamped(__u32 mss, __u32 limit)
{
	return limit && mss > limit ? limit : mss;
}

/* Of a packet before it is translated or encapsulated. 0, or not. */
INLINE int clamp(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct server *server = get_server(memory->decision.server, memory->decision.generation);
	struct syn_proxy *x = &memory->proxy;
	if (!server || !server->mss || p->kind != KIND_L4 || p->tuple.protocol != IPPROTO_TCP)
		return 0;
	if (read_segment(ctx, hook, memory))
		return -1;
	__be16 mss = bpf_htons(server->mss), old = bpf_htons(x->options.mss);
	__u32 tcp = ETH_HLEN + p->header, at = x->options.mss_at;
	if (!at || x->options.mss <= server->mss)
		return 0;
	if (store_bytes(ctx, hook, tcp + TCP_HEADER + at, &mss, sizeof(mss)))
		return -1;
	count_clamped(server->service);
	if (at & 1) { /* it lies across two words of the checksum */
		mss = bpf_htons(bpf_ntohs(mss) << 8 | bpf_ntohs(mss) >> 8);
		old = bpf_htons(bpf_ntohs(old) << 8 | bpf_ntohs(old) >> 8);
	}
	if (hook == HOOK_TC)
		return bpf_l4_csum_replace(ctx, tcp + TCP_CHECK_AT, old, mss, sizeof(mss)) ? -1 : 0;
	csum_replace2(&x->tcp.check, old, mss);
	return store_bytes(ctx, hook, tcp + TCP_CHECK_AT, &x->tcp.check, sizeof(x->tcp.check)) ? -1 : 0;
}

RARE(clamp)

/* TCP flags of what has no ports are not its own; clamp() looks. The server's SYN-ACK has to look it up first. */
INLINE bool may_be_clamped(const struct packet *p, const struct server *server)
{
	return unlikely(p->tcp_flags & TCP_FLAG_SYN) && (!server || server->flags & SERVER_CLAMP);
}

#endif
