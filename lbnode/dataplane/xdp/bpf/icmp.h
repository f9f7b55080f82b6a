/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP to VIPs and about balanced connections (RFC 792; translation of errors: RFC 5508 section 4). */
#ifndef LBNODE_ICMP_H
#define LBNODE_ICMP_H

#include "icmp_send.h"
#include "icmp6.h"

INLINE int echo_reply4(void *ctx, const int hook, const struct packet *p)
{
	void *data = frame(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + header_length(p, 4);
	if ((void *)(ip + 1) > frame_end(ctx, hook) || (void *)(icmp + 1) > frame_end(ctx, hook))
		return pass(hook);
	icmp->type = ICMP_ECHO_REPLY;
	csum_replace2(&icmp->checksum, bpf_htons(ICMP_ECHO << 8), bpf_htons(ICMP_ECHO_REPLY << 8));
	if (!icmp->checksum)
		/* A message of zeros alone: RFC 1624's formula has two zeros, this one is right. */
		icmp->checksum = 0xffff;
	__be32 client = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	csum_replace2(&ip->check, bpf_htons(ip->ttl << 8), bpf_htons(64 << 8));
	ip->ttl = 64;
	count(EVENT_ECHO);
	return reflect(ctx, hook);
}

INLINE int echo_reply(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	if (addr_equal(&p->tuple.source, &p->tuple.target))
		return drop(hook, EVENT_DROP_LAND);
	return p->family == 6 ? echo_reply6(ctx, hook, p) : echo_reply4(ctx, hook, p);
}

RARE(echo_reply)

/*
 * The quoted header of an ICMP error; only ports are needed, which are within the first 8 bytes. Options in
 * the quoted header are passed over.
 */
INLINE bool read_quote(struct icmp_header *icmp, void *end, struct packet *p)
{
	struct iphdr *ip = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	if (!balanced_protocol(ip->protocol))
		return false;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return false;
	p->quoted_header = ip->ihl * 4;
	__be16 *port = (void *)ip + (p->quoted_header & 0x3c);
	if ((void *)(port + 4) > end || p->length < p->header + ICMP_HEADER + p->quoted_header + QUOTED_L4)
		return false;
	struct tuple *t = &p->quoted;
	addr_set_v4(&t->source, ip->saddr);
	addr_set_v4(&t->target, ip->daddr);
	t->source_port = port[0];
	t->target_port = port[1];
	tuple_set_protocol(t, ip->protocol);
	return true;
}

/* Both checksums follow every 16-bit word of the message that changes. */
INLINE void quote_replace2(struct icmp_header *icmp, __u16 *at, __u16 new)
{
	csum_replace2(&icmp->checksum, *at, new);
	*at = new;
}

/*
 * Translate the quoted packet's source or target (`to->source`), and the error's own other end to the same address: the
 * quoted packet runs against the error. The quoted L4 checksum is mended where it is quoted. The TTL stays.
 */
INLINE int translate_error4(void *ctx, const int hook, const struct packet *p, const struct rewrite *to)
{
	const bool source = to->source;
	const __be32 new = to->address.word[3];
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + header_length(p, 4);
	struct iphdr *inner = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end || (void *)(inner + 1) > end)
		return -1;
	__be16 *l4 = (void *)inner + safe_length(&p->quoted_header, 4);
	if ((void *)(l4 + 4) > end)
		return -1;
	const struct tuple *t = &p->quoted;
	__be32 old = source ? t->source.word[3] : t->target.word[3];
	__be16 old_port = source ? t->source_port : t->target_port;
	/* address and header checksum change together: their sum, and so the ICMP checksum, stays */
	ip_set_addr(inner, source, new);
	quote_replace2(icmp, &l4[source ? 0 : 1], to->port);
	__be32 seq = quoted_seq(l4), own = to->delta ? seq_without(seq, to->delta) : seq;
	if (to->delta) {
		quote_replace2(icmp, &l4[2], own);
		quote_replace2(icmp, &l4[3], own >> 16);
	}
	__u16 *check = quoted_checksum(l4, end, p);
	if (check) {
		__u16 sum = *check;
		csum_replace4(&sum, old, new);
		csum_replace2(&sum, old_port, to->port);
		csum_replace4(&sum, seq, own);
		if (!sum && t->protocol == IPPROTO_UDP)
			sum = 0xffff;
		quote_replace2(icmp, check, sum);
	}
	ip_set_addr(ip, !source, new);
	return 0;
}

/* What kind of ICMP packet it is. */
INLINE int parse_icmp(struct iphdr *ip, void *end, struct packet *p)
{
	struct icmp_header *icmp = (void *)ip + header_length(p, 4);
	if (p->length < p->header + ICMP_HEADER || (void *)(icmp + 1) > end)
		return KIND_OTHER;
	switch (icmp->type) {
	case ICMP_ECHO:
		return icmp->code == 0 ? KIND_ICMP_ECHO : KIND_OTHER;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		return read_quote(icmp, end, p) ? KIND_ICMP_ERROR : KIND_OTHER;
	default:
		return KIND_OTHER;
	}
}

#endif
