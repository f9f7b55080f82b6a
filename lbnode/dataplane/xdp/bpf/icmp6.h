/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMPv6 to VIPs and about balanced connections (RFC 4443): as icmp.h, but its checksum covers the addresses too. */
#ifndef LBNODE_ICMP6_H
#define LBNODE_ICMP6_H

#include "icmp_send.h"

INLINE int echo_reply6(void *ctx, const int hook, const struct packet *p)
{
	void *data = frame(ctx, hook);
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + header_length(p, 6);
	if ((void *)(ip + 1) > frame_end(ctx, hook) || (void *)(icmp + 1) > frame_end(ctx, hook))
		return pass(hook);
	icmp->type = ICMP6_ECHO_REPLY;
	csum_replace2(&icmp->checksum, bpf_htons(ICMP6_ECHO << 8), bpf_htons(ICMP6_ECHO_REPLY << 8));
	__builtin_memcpy(&ip->saddr, &p->tuple.target, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &p->tuple.source, sizeof(ip->daddr));
	ip->hop_limit = 64;
	count(EVENT_ECHO);
	return reflect(ctx, hook);
}

/* The checksum of the quoted packet that its ports and addresses count in; NULL: there is none, or it is not quoted. */
INLINE __u16 *quoted_checksum(__be16 *l4, void *end, const struct packet *p)
{
	if (p->quoted.protocol == IPPROTO_UDP)
		return l4[UDP_CHECK_AT / 2] ? &l4[UDP_CHECK_AT / 2] : NULL;
	if (p->quoted.protocol != IPPROTO_TCP || (void *)(l4 + TCP_CHECK_AT / 2 + 1) > end ||
	    p->length < p->header + ICMP_HEADER + p->quoted_header + TCP_CHECK_AT + 2)
		return NULL;
	return &l4[TCP_CHECK_AT / 2];
}

/* As translate_error4. */
INLINE int translate_error6(void *ctx, const int hook, const struct packet *p, const struct rewrite *to)
{
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + header_length(p, 6);
	struct ipv6hdr *inner = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end || (void *)(inner + 1) > end)
		return -1;
	__be16 *l4 = (void *)inner + safe_length(&p->quoted_header, 6);
	if ((void *)(l4 + 4) > end)
		return -1;
	const struct tuple *t = &p->quoted;
	const bool source = to->source;
	__be16 old_port = source ? t->source_port : t->target_port;
	__u64 change = addr_delta(source ? &t->source : &t->target, &to->address, 6) + (__u16)~old_port + to->port;
	if (to->delta) {
		__be32 seq = quoted_seq(l4), own = seq_without(seq, to->delta);
		change += (__u64)(__u32)~seq + own;
		set_quoted_seq(l4, own);
	}
	__u16 *check = quoted_checksum(l4, end, p);
	__u64 whole = change + addr_delta(source ? &p->tuple.target : &p->tuple.source, &to->address, 6);
	if (check) {
		__u16 sum = *check;
		csum_add(&sum, change);
		if (!sum && t->protocol == IPPROTO_UDP)
			sum = 0xffff;
		whole += (__u16) ~*check + sum;
		*check = sum;
	}
	l4[source ? 0 : 1] = to->port;
	__builtin_memcpy(source ? &inner->saddr : &inner->daddr, &to->address, sizeof(inner->saddr));
	__builtin_memcpy(source ? &ip->daddr : &ip->saddr, &to->address, sizeof(ip->saddr));
	csum_add(&icmp->checksum, whole);
	return 0;
}

#endif
