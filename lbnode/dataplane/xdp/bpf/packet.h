/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading packets and mending checksums; the same for both hooks. */
#ifndef LBNODE_PACKET_H
#define LBNODE_PACKET_H

#include "tcp.h"

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP_HEADER 20
#define IP6_HEADER 40
#define TCP_CHECK_AT 16 /* offsetof(struct tcphdr, check) */
#define UDP_CHECK_AT 6
#define HEADERS_MAX 248 /* IPv6 header and extension headers: longer ones are left to the stack */

enum kind {
	KIND_OTHER,	     /* nothing for us */
	KIND_L4,	     /* whole TCP, UDP or SCTP packet: `tuple` is filled */
	KIND_FIRST_FRAGMENT, /* of one */
	KIND_ICMP,	     /* whole ICMP or ICMPv6 packet: addresses of `tuple` are filled */
	KIND_ICMP_ECHO,	     /* ... an echo request */
	KIND_ICMP_ERROR,     /* ... an error about a TCP, UDP or SCTP packet: `quoted` is filled */
	KIND_FRAGMENT,	     /* a later one: the ports of `tuple` are not known */
	KIND_MALFORMED,	     /* `malformed` tells how */
};

struct packet {
	struct tuple tuple;
	__u64 now;	     /* of the leases */
	__u32 length;	     /* of the IP packet, header included */
	__u32 header;	     /* of the IP header: IPv4 20 to 60, IPv6 with its extension headers 40 to HEADERS_MAX */
	__u32 quoted_header; /* of the quoted IP header */
	__u32 mark;	     /* firewall mark; frames have none */
	__u32 fragment_id;   /* identification of a fragment */
	__u8 kind;
	__u8 tcp_flags; /* SCTP: those that mean the same */
	__u8 ttl;	/* IPv6: hop limit */
	__u8 tos;	/* IPv6: traffic class */
	bool dont_fragment;
	__u8 l4_header; /* length of the TCP or UDP header; 0 for others */
	__u8 family;	/* 4 or 6 */
	__u8 malformed; /* enum event */
	__u8 reserved[4];
	struct tuple quoted;
};

INLINE int malformed(struct packet *p, __u32 event)
{
	p->malformed = event;
	return KIND_MALFORMED;
}

/* RFC 9260 3.1, and of the first chunk what is looked at. */
struct sctp_header {
	__be16 source;
	__be16 dest;
	__be32 tag;
	__le32 checksum; /* CRC32c (appendix A), without pseudo header */
	__u8 chunk;
	__u8 chunk_flags;
	__be16 chunk_length;
};
#define SCTP_HEADER 12

/* ICMP and ICMPv6; what the second half means depends on the type. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 value;
};

INLINE __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m') */
INLINE void csum_replace2(__u16 *check, __u16 old, __u16 new)
{
	*check = ~csum_fold((__u16) ~*check + (__u16)~old + new);
}

/* The same for many words at once: `delta` is the sum of ~m + m' over all of them. */
INLINE void csum_add(__u16 *check, __u64 delta)
{
	__u64 sum = (__u16) ~*check + delta;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*check = ~sum;
}

INLINE void csum_replace4(__u16 *check, __u32 old, __u32 new)
{
	*check = ~csum_fold((__u16) ~*check + (__u16) ~(old & 0xffff) + (__u16) ~(old >> 16) + (new & 0xffff) +
			    (new >> 16));
}

/* What an address that takes another's place does to the checksums over it. At most 36 bits. */
INLINE __u64 addr_delta(const struct addr *old, const struct addr *new, const int family)
{
	__u64 sum = (__u64)(__u32)~old->word[3] + new->word[3];
	if (family == 6)
		sum += (__u64)(__u32)~old->word[0] + new->word[0] + (__u32)~old->word[1] + new->word[1] +
		       (__u32)~old->word[2] + new->word[2];
	return sum;
}

INLINE __u16 ip_sum(const struct iphdr *ip)
{
	const __u16 *word = (const void *)ip;
	__u32 sum = 0;
#pragma unroll
	for (int i = 0; i < IP_HEADER / 2; i++)
		sum += word[i];
	return csum_fold(sum);
}

INLINE void ip_set_checksum(struct iphdr *ip)
{
	ip->check = 0;
	ip->check = ~ip_sum(ip);
}

INLINE void ip_change_ttl(struct iphdr *ip, const int change)
{
	csum_replace2(&ip->check, bpf_htons(ip->ttl << 8), bpf_htons((ip->ttl + change) << 8));
	ip->ttl += change;
}

INLINE void ip_set_addr(struct iphdr *ip, bool source, __be32 new)
{
	__be32 *at = source ? &ip->saddr : &ip->daddr;
	csum_replace4(&ip->check, *at, new);
	*at = new;
}

/* Sum of the IP options, which lie behind the first 20 bytes; -1: beyond the data. */
INLINE int options_sum(const struct iphdr *ip, void *end, __u32 header)
{
	const __u16 *word = (const void *)(ip + 1);
	__u32 sum = 0;
	for (__u32 i = 0; i < 20; i++) {
		if (i * 2 + IP_HEADER >= header)
			break;
		if ((void *)(word + i + 1) > end)
			return -1;
		sum += word[i];
	}
	return csum_fold(sum);
}

/*
 * Reads an Ethernet frame with IPv4. `available`: bytes of the frame behind the Ethernet header, of which the first ones
 * lie before `end`. What a host or router must check, is checked (RFC 1122 3.2.1, RFC 1812 5.2.2): version, lengths, the
 * header's checksum.
 */
INLINE int parse_ip(struct iphdr *ip, void *end, __u32 available, struct packet *p)
{
	if ((void *)(ip + 1) > end)
		return KIND_OTHER;
	p->family = 4;
	p->header = ip->ihl * 4;
	p->length = bpf_ntohs(ip->tot_len);
	p->ttl = ip->ttl;
	p->tos = ip->tos;
	p->dont_fragment = ip->frag_off & bpf_htons(IP_DF);
	addr_set_v4(&p->tuple.source, ip->saddr);
	addr_set_v4(&p->tuple.target, ip->daddr);
	p->tuple.source_port = p->tuple.target_port = 0;
	tuple_set_protocol(&p->tuple, ip->protocol);
	if (ip->version != 4 || p->header < IP_HEADER || p->length < p->header || p->length > available)
		return malformed(p, EVENT_DROP_IP_HEADER);
	__u32 sum = ip_sum(ip);
	if (unlikely(p->header > IP_HEADER)) {
		int options = options_sum(ip, end, p->header);
		if (options < 0)
			return KIND_OTHER;
		sum = csum_fold(sum + options);
	}
	if (sum != 0xffff)
		return malformed(p, EVENT_DROP_IP_CHECKSUM);
	if (unlikely(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))) {
		p->fragment_id = ip->id;
		return ip->frag_off & bpf_htons(IP_OFFSET) ? KIND_FRAGMENT : KIND_FIRST_FRAGMENT;
	}
	return KIND_L4;
}

/*
 * Every segment has ACK but the first one and a reset, and at most one of SYN, FIN and RST (RFC 9293 3.5, 3.10.7). The
 * other combinations come from scanners and floods alone.
 */
INLINE bool tcp_flags_nonsense(__u8 flags)
{
	__u32 kind = flags & (TCP_FLAG_SYN | TCP_FLAG_FIN | TCP_FLAG_RST);
	return !(flags & (TCP_FLAG_SYN | TCP_FLAG_RST | TCP_FLAG_ACK)) || kind & (kind - 1);
}

/*
 * A length of IP headers, as an offset that is safe to use. Read anew: where the compiler remembers it, Linux 6.1 has
 * drawn conclusions from comparisons that contradict each other, and gives up the pointer that it is added to.
 */
INLINE __u32 safe_length(const __u32 *length, int family)
{
	return *(const volatile __u32 *)length & (family == 6 ? HEADERS_MAX : 0x3c);
}

INLINE __u32 header_length(const struct packet *p, int family)
{
	return safe_length(&p->header, family);
}

/*
 * SCTP's chunks in TCP's flags, so that one state machine serves both: it opens with INIT and INIT ACK, closes with SHUTDOWN
 * and its answers, and ends with ABORT (RFC 9260 section 4; ip_vs_proto_sctp.c has a machine of its own with the same outcome).
 */
INLINE __u8 sctp_flags(__u8 chunk)
{
	switch (chunk) {
	case 1: /* INIT */
		return TCP_FLAG_SYN;
	case 2: /* INIT ACK */
		return TCP_FLAG_SYN | TCP_FLAG_ACK;
	case 6:	 /* ABORT */
	case 14: /* SHUTDOWN COMPLETE */
		return TCP_FLAG_RST;
	case 7: /* SHUTDOWN */
	case 8: /* SHUTDOWN ACK */
		return TCP_FLAG_FIN;
	default:
		return TCP_FLAG_ACK;
	}
}

/*
 * What stands behind the IP headers at `ip`; `tuple.protocol` says what it is. `kind`: KIND_L4 or KIND_FIRST_FRAGMENT, which
 * is also what comes back if all is well. A first fragment must hold the whole L4 header (RFC 1858, RFC 7112).
 */
INLINE int parse_l4(void *ip, void *end, struct packet *p, const int family, int kind)
{
	void *l4 = ip + header_length(p, family);
	__u32 payload = p->length - p->header;
	p->tcp_flags = 0;
	p->l4_header = 0;
	if (p->tuple.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;
		if (payload < sizeof(*tcp))
			return malformed(p, EVENT_DROP_L4_HEADER);
		if ((void *)(tcp + 1) > end)
			return KIND_OTHER;
		if (tcp->doff * 4 < sizeof(*tcp) || tcp->doff * 4 > payload)
			return malformed(p, EVENT_DROP_L4_HEADER);
		p->tuple.source_port = tcp->source;
		p->tuple.target_port = tcp->dest;
		p->tcp_flags = ((__u8 *)tcp)[13];
		p->l4_header = tcp->doff * 4;
		if (unlikely(tcp_flags_nonsense(p->tcp_flags)))
			return malformed(p, EVENT_DROP_TCP_FLAGS);
		return kind;
	}
	if (p->tuple.protocol == IPPROTO_UDP) {
		struct udphdr *udp = l4;
		if (payload < sizeof(*udp))
			return malformed(p, EVENT_DROP_L4_HEADER);
		if ((void *)(udp + 1) > end)
			return KIND_OTHER;
		if (bpf_ntohs(udp->len) < sizeof(*udp))
			return malformed(p, EVENT_DROP_L4_HEADER);
		if (bpf_ntohs(udp->len) > payload && kind == KIND_L4)
			return malformed(p, EVENT_DROP_L4_HEADER);
		p->l4_header = sizeof(*udp);
		p->tuple.source_port = udp->source;
		p->tuple.target_port = udp->dest;
		return kind;
	}
	if (p->tuple.protocol == IPPROTO_SCTP) {
		struct sctp_header *sctp = l4;
		if (payload < sizeof(*sctp))
			return malformed(p, EVENT_DROP_L4_HEADER);
		if ((void *)sctp + SCTP_HEADER > end)
			return KIND_OTHER;
		p->l4_header = SCTP_HEADER;
		/* A bundle (hook.h) has its chunks elsewhere: none of those that stand alone in their packet. */
		p->tcp_flags = (void *)(sctp + 1) > end ? TCP_FLAG_ACK : sctp_flags(sctp->chunk);
		p->tuple.source_port = sctp->source;
		p->tuple.target_port = sctp->dest;
		return kind;
	}
	if (kind == KIND_FIRST_FRAGMENT)
		return KIND_OTHER; /* not a later one: IPv6's identifications are apart without the protocol */
	return p->tuple.protocol == (family == 6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) ? KIND_ICMP : KIND_OTHER;
}

INLINE void tuple_reverse(struct tuple *to, const struct tuple *from)
{
	*to = *from;
	to->source = from->target;
	to->target = from->source;
	to->source_port = from->target_port;
	to->target_port = from->source_port;
}

#endif
