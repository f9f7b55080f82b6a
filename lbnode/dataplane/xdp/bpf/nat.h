/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Network address translation of whole packets, fragments and ICMP errors. The TTL is decremented, as IPVS does. */
#ifndef LBNODE_NAT_H
#define LBNODE_NAT_H

#include "decide.h"
#include "icmp.h"
#include "sctp.h"

/*
 * Network address translation of the source or the target; the TTL becomes `hops` less, 0 or 1. 0, or -1: the packet cannot
 * be written. UDP's checksum 0 means that there is none (RFC 768): it stays, and none becomes it.
 */
INLINE int translate(void *ctx, const int hook, const struct packet *p, bool source, const struct addr *new,
		     __be16 new_port, const int family, const int hops)
{
	__be16 old_port = source ? p->tuple.source_port : p->tuple.target_port;
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u32 header = header_length(p, family);
	__u64 delta = addr_delta(source ? &p->tuple.source : &p->tuple.target, new, family);
	if (hook == HOOK_TC) {
		__u32 at = ETH_HLEN + header + (tcp ? TCP_CHECK_AT : UDP_CHECK_AT);
		__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0, folded = (delta & 0xffffffff) + (delta >> 32);
		folded = (folded & 0xffffffff) + (folded >> 32);
		if (bpf_l4_csum_replace(ctx, at, 0, folded, flags | BPF_F_PSEUDO_HDR))
			return -1;
		if (old_port != new_port && bpf_l4_csum_replace(ctx, at, old_port, new_port, flags | 2))
			return -1;
	}
	void *end = frame_end(ctx, hook);
	void *ip = frame(ctx, hook) + ETH_HLEN;
	if (ip + (family == 6 ? IP6_HEADER : IP_HEADER) > end)
		return -1;
	__be16 *l4 = ip + header;
	if ((void *)(l4 + 4) > end)
		return -1;
	if (is_xdp(hook)) {
		__u64 change = delta + (__u16)~old_port + new_port;
		if (tcp) {
			if ((void *)(l4 + 9) > end)
				return -1;
			csum_add(&l4[TCP_CHECK_AT / 2], change);
		} else if (l4[UDP_CHECK_AT / 2]) {
			csum_add(&l4[UDP_CHECK_AT / 2], change);
			if (!l4[UDP_CHECK_AT / 2])
				l4[UDP_CHECK_AT / 2] = 0xffff;
		}
	}
	l4[source ? 0 : 1] = new_port;
	if (family == 6) {
		struct ipv6hdr *ip6 = ip;
		__builtin_memcpy(source ? &ip6->saddr : &ip6->daddr, new, sizeof(ip6->saddr));
		ip6->hop_limit -= hops;
	} else {
		struct iphdr *ip4 = ip;
		*(source ? &ip4->saddr : &ip4->daddr) = new->word[3];
		ip4->ttl -= hops;
		/* one less in the upper byte */
		csum_add(&ip4->check, delta + (hops ? (__u16)~bpf_htons(0x100) : 0));
	}
	return 0;
}

/* The address alone: of a later fragment, which has no ports; no checksum covers it but the IPv4 header's. */
INLINE int translate_address(void *ctx, const int hook, const struct packet *p, const struct rewrite *to)
{
	struct ipv6hdr *ip6 = frame(ctx, hook) + ETH_HLEN;
	struct iphdr *ip = (void *)ip6;
	if (p->family == 6) {
		if ((void *)(ip6 + 1) > frame_end(ctx, hook))
			return -1;
		__builtin_memcpy(to->source ? &ip6->saddr : &ip6->daddr, &to->address, sizeof(ip6->saddr));
		return 0;
	}
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	ip_set_addr(ip, to->source, to->address.word[3]);
	return 0;
}

/* One end of what is not a whole TCP or UDP packet: memory->rewrite. The TTL stays. */
INLINE int translate_end(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	if (p->kind == KIND_FRAGMENT)
		return translate_address(ctx, hook, p, &memory->rewrite);
	if (p->kind != KIND_ICMP_ERROR) {
		if (translate_sctp_port(ctx, hook, p, &memory->rewrite))
			return -1;
		return translate_address(ctx, hook, p, &memory->rewrite);
	}
	return p->family == 6 ? translate_error6(ctx, hook, p, &memory->rewrite)
			      : translate_error4(ctx, hook, p, &memory->rewrite);
}

INLINE int translate_rare(void *ctx, const int hook, struct scratch *memory)
{
	if (translate_end(ctx, hook, memory))
		return -1;
	return memory->packet.family == 6 ? decrement_ttl(ctx, hook, 6) : decrement_ttl(ctx, hook, 4);
}

RARE(translate_rare)

/* Give the packet its new addresses; `server` NULL: the client's side. */
INLINE int masquerade(void *ctx, const int hook, struct scratch *memory, const struct server *server, const int family)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	const struct addr *new = server ? &server->address : &d->vip;
	bool ports = p->kind == KIND_L4 || p->kind == KIND_FIRST_FRAGMENT;
	__be16 old_port = likely(ports) ? p->tuple.target_port : p->quoted.source_port;
	__be16 new_port = server ? server_port(server, old_port) : d->vip_port;
	if (likely(ports && p->tuple.protocol != IPPROTO_SCTP))
		return translate(ctx, hook, p, !server, new, new_port, family, 1);
	memory->rewrite.address = *new;
	memory->rewrite.port = new_port;
	memory->rewrite.delta = p->kind == KIND_ICMP_ERROR ? d->delta : 0;
	/* A packet that is quoted ran against the error. */
	memory->rewrite.source = (p->kind == KIND_ICMP_ERROR) == (server != NULL);
	return call_translate_rare(ctx, hook, memory);
}

#endif
