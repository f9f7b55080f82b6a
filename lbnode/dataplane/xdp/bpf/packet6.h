/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading IPv6 packets (RFC 8200): the header, and the extension headers between it and TCP, UDP or ICMPv6. */
#ifndef LBNODE_PACKET6_H
#define LBNODE_PACKET6_H

#include "icmp_send.h"

#define EXTENSIONS_MAX 6 /* headers in one packet that are passed over */

/* What the walk over extension headers found. */
struct extensions {
	__u32 length;	/* of all of them */
	__u32 id;	/* of a fragment */
	__u8 protocol;	/* behind them */
	__u8 kind;	/* KIND_L4, KIND_FIRST_FRAGMENT or KIND_FRAGMENT: then the walk ended at its header */
	bool elsewhere; /* a routing header names further stations: the packet is not at its target yet (RFC 8200 4.4) */
};

/*
 * From offset `at` of the frame on, within `available` bytes. Headers are read by a helper, because they may be long and lie
 * anywhere. False: more of them than the data plane looks at, or cut off.
 */
INLINE bool walk_extensions(void *ctx, const int hook, __u32 at, __u32 available, __u8 protocol, struct extensions *e)
{
	struct {
		__u8 next;
		__u8 length;   /* beyond 8 bytes, in units of 8 bytes; not of fragment headers */
		__be16 offset; /* of a fragment, more fragments; routing: type, segments left */
		__be32 id;     /* of a fragment */
	} head;
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = KIND_L4;
	e->protocol = protocol;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		if (e->protocol != IPPROTO_HOPOPTS && e->protocol != IPPROTO_ROUTING &&
		    e->protocol != IPPROTO_DSTOPTS && e->protocol != IPPROTO_FRAGMENT)
			return e->length <= HEADERS_MAX - IP6_HEADER;
		if (e->length + 8 > available || load_bytes(ctx, hook, at + e->length, &head, sizeof(head)))
			return false;
		if (e->protocol == IPPROTO_ROUTING && head.offset & bpf_htons(0xff))
			e->elsewhere = true;
		bool fragment = e->protocol == IPPROTO_FRAGMENT;
		e->protocol = head.next;
		e->length += fragment ? 8 : 8 + head.length * 8;
		if (!fragment)
			continue;
		e->id = head.id;
		if (head.offset & bpf_htons(0xfff8)) {
			e->kind = KIND_FRAGMENT;
			return e->length <= HEADERS_MAX - IP6_HEADER;
		}
		if (head.offset & bpf_htons(1)) /* alone, a first fragment is a whole packet (RFC 6946) */
			e->kind = KIND_FIRST_FRAGMENT;
	}
	return false;
}

INLINE bool has_extensions(__u8 protocol)
{
	return protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMPV6 &&
	       protocol != IPPROTO_SCTP;
}

/* The packet that an ICMPv6 error quotes: its addresses and ports, which run against the error. */
INLINE bool read_quote6(void *ctx, const int hook, struct packet *p)
{
	struct ipv6hdr ip;
	struct extensions e;
	__be16 ports[2];
	__u32 at = ETH_HLEN + p->header + ICMP_HEADER, available = p->length - p->header - ICMP_HEADER;
	struct tuple *t = &p->quoted;
	if (p->length < p->header + ICMP_HEADER + IP6_HEADER || load_bytes(ctx, hook, at, &ip, sizeof(ip)))
		return false;
	p->quoted_header = IP6_HEADER;
	t->protocol = ip.nexthdr;
	if (unlikely(has_extensions(ip.nexthdr))) {
		if (!walk_extensions(ctx, hook, at + IP6_HEADER, available - IP6_HEADER, ip.nexthdr, &e) ||
		    e.kind == KIND_FRAGMENT)
			return false;
		p->quoted_header += e.length;
		t->protocol = e.protocol;
	}
	if (ip.version != 6 || !balanced_protocol(t->protocol))
		return false;
	if (available < p->quoted_header + QUOTED_L4 ||
	    load_bytes(ctx, hook, at + p->quoted_header, ports, sizeof(ports)))
		return false;
	__builtin_memcpy(&t->source, &ip.saddr, sizeof(t->source));
	__builtin_memcpy(&t->target, &ip.daddr, sizeof(t->target));
	t->source_port = ports[0];
	t->target_port = ports[1];
	return !addr_is_v4(&t->source) && !addr_is_v4(&t->target);
}

INLINE int parse_icmp6(void *ctx, const int hook, struct packet *p)
{
	__u8 head[2];
	if (p->length < p->header + ICMP_HEADER || load_bytes(ctx, hook, ETH_HLEN + p->header, head, sizeof(head)))
		return KIND_OTHER;
	switch (head[0]) {
	case ICMP6_ECHO:
		return head[1] == 0 ? KIND_ICMP_ECHO : KIND_OTHER;
	case ICMP6_DEST_UNREACH:
	case ICMP6_TOO_BIG:
	case ICMP6_TIME_EXCEEDED:
	case ICMP6_PARAMETER_PROBLEM:
		return read_quote6(ctx, hook, p) ? KIND_ICMP_ERROR : KIND_OTHER;
	default:
		return KIND_OTHER; /* neighbour discovery among others */
	}
}

/*
 * An Ethernet frame with IPv6. Returns enum kind. A jumbogram (RFC 2675) is left to the stack. So are mapped addresses:
 * here they stand for IPv4, on the wire they have no place (RFC 4291 2.5.5.2).
 */
INLINE int read_ip6(void *ctx, const int hook, struct scratch *memory)
{
	struct packet *p = &memory->packet;
	int kind = KIND_L4;
	struct ipv6hdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return KIND_OTHER;
	p->family = 6;
	p->header = IP6_HEADER;
	p->length = IP6_HEADER + bpf_ntohs(ip->payload_len);
	p->ttl = ip->hop_limit;
	p->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	p->dont_fragment = true; /* routers never fragment IPv6 */
	__builtin_memcpy(&p->tuple.source, &ip->saddr, sizeof(p->tuple.source));
	__builtin_memcpy(&p->tuple.target, &ip->daddr, sizeof(p->tuple.target));
	p->tuple.source_port = p->tuple.target_port = 0;
	tuple_set_protocol(&p->tuple, ip->nexthdr);
	if (ip->version != 6 || p->length > frame_len(ctx, hook) - ETH_HLEN)
		return malformed(p, EVENT_DROP_IP_HEADER);
	if (addr_is_v4(&p->tuple.source) || addr_is_v4(&p->tuple.target))
		return KIND_OTHER;
	if (unlikely(has_extensions(ip->nexthdr))) {
		struct extensions e;
		if (ip->nexthdr == IPPROTO_HOPOPTS && !ip->payload_len)
			return KIND_OTHER;
		if (!walk_extensions(ctx, hook, ETH_HLEN + IP6_HEADER, p->length - IP6_HEADER, ip->nexthdr, &e))
			return KIND_OTHER;
		p->header += e.length;
		p->tuple.protocol = e.protocol;
		if (e.elsewhere)
			return KIND_OTHER;
		if (p->header > p->length)
			return malformed(p, EVENT_DROP_IP_HEADER);
		kind = e.kind;
		p->fragment_id = e.id;
		if (kind == KIND_FRAGMENT)
			return kind;
	}
	kind = parse_l4(frame(ctx, hook) + ETH_HLEN, frame_end(ctx, hook), p, 6, kind);
	return kind == KIND_ICMP ? parse_icmp6(ctx, hook, p) : kind;
}

RARE(read_ip6)

#endif
