/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors that the gateway itself sends: packet too big, port unreachable, time exceeded, host unreachable (IPVS's answer
 * where there is no route) (RFC 792, RFC 1812 4.3.2; RFC 4443). The packet is turned into the answer in place: cut to its headers and 8 bytes, IP and ICMP headers put in
 * front. Packets with IPv4 options get no answer.
 */
#ifndef LBNODE_ICMP_SEND_H
#define LBNODE_ICMP_SEND_H

#include "sum.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_HOST_UNREACH 1
#define ICMP_PORT_UNREACH 3
#define ICMP_FRAG_NEEDED 4

#define ICMP6_DEST_UNREACH 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_PARAMETER_PROBLEM 4
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_ADDRESS_UNREACH 3
#define ICMP6_PORT_UNREACH 4

#define ICMP_HEADER 8

INLINE bool balanced_protocol(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}
#define QUOTED_L4 8

/* At most `icmp_rate` per second: the sweeper's tick refills. */
INLINE bool icmp_allowed(void)
{
	struct clock *clock = get_clock();
	if (!clock || (__s32)clock->icmp_tokens <= 0)
		return false;
	return (__s32)__sync_fetch_and_add(&clock->icmp_tokens, -1) > 0;
}

/* Remember what the sender shall hear; the caller counts the packet. */
INLINE int refuse(const int hook, struct scratch *memory, const struct addr *from, __u32 reason, __u32 mtu)
{
	memory->answer.from = *from;
	memory->answer.reason = reason;
	memory->answer.mtu = mtu;
	return dropped(hook);
}

/*
 * A socket buffer may leave its L4 checksum to the device: then the bytes that we quote change after we summed them up. The
 * final ones sum up to the complement of what stands in the checksum field now (the pseudo header's sum). That it is
 * so cannot be read, but such a buffer refuses to be cut before the end of its checksum field. Cuts the packet to the quote;
 * *pending: 0, or that sum. *quoted: length of the L4 part.
 */
INLINE int quote_tc(struct __sk_buff *skb, const struct packet *p, __u32 l4_at, __u32 *quoted, __u16 *pending)
{
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u8 last;
	*quoted = QUOTED_L4;
	if (bpf_skb_load_bytes(skb, l4_at + QUOTED_L4 - 1, &last, 1))
		return -1;
	if (bpf_skb_change_tail(skb, l4_at + QUOTED_L4 - 1, 0) == 0) {
		if (bpf_skb_change_tail(skb, l4_at + QUOTED_L4, 0))
			return -1;
		return bpf_skb_store_bytes(skb, l4_at + QUOTED_L4 - 1, &last, 1, 0);
	}
	if (p->tuple.protocol == IPPROTO_SCTP)
		return -1;
	*quoted = tcp ? sizeof(struct tcphdr) : QUOTED_L4;
	if (bpf_skb_load_bytes(skb, l4_at + (tcp ? 16 : 6), pending, sizeof(*pending)))
		return -1;
	return bpf_skb_change_tail(skb, l4_at + *quoted, 0);
}

/* Cut to headers and quote, then make room for an IP header and ICMP's between Ethernet and the quoted header. */
INLINE int make_room(void *ctx, const int hook, const struct packet *p, const __u32 own, __u32 *quoted, __u16 *pending)
{
	__u32 l4_at = ETH_HLEN + p->header;
	const __u32 front = own + ICMP_HEADER;
	if (hook == HOOK_TC)
		return quote_tc(ctx, p, l4_at, quoted, pending) || bpf_skb_adjust_room(ctx, front, BPF_ADJ_ROOM_MAC, 0);
	int surplus = frame_len(ctx, hook) - (l4_at + QUOTED_L4);
	*quoted = QUOTED_L4;
	if (surplus < 0 || bpf_xdp_adjust_tail(ctx, -surplus))
		return -1;
	struct ethhdr *eth = frame(ctx, hook);
	if ((void *)(eth + 1) > frame_end(ctx, hook))
		return -1;
	struct ethhdr saved = *eth;
	if (bpf_xdp_adjust_head(ctx, -(int)front))
		return -1;
	eth = frame(ctx, hook);
	if ((void *)(eth + 1) > frame_end(ctx, hook))
		return -1;
	*eth = saved;
	return 0;
}

/* The sequence number that a quoted TCP segment begins with; of a connection that began with a SYN cookie. */
INLINE __be32 quoted_seq(const __be16 *l4)
{
	return l4[2] | (__u32)l4[3] << 16;
}

INLINE __be32 seq_without(__be32 seq, __u32 delta)
{
	return bpf_htonl(bpf_ntohl(seq) - delta);
}

INLINE void set_quoted_seq(__be16 *l4, __be32 seq)
{
	l4[2] = seq;
	l4[3] = seq >> 16;
}

/* A server's packet has been renumbered for the client (syn_proxy.h) before it turned out that it cannot go on. */
GLOBAL int renumbered_by(const struct packet *p)
{
	struct config *config = get_config();
	struct place place = {};
	if (!p || !config || p->tuple.protocol != IPPROTO_TCP)
		return 0;
	if (!conn_find_reply(&p->tuple, tuple_hash(&p->tuple, config->seed), &place))
		return 0;
	return word_flags(place.word) & CONN_PROXIED ? *place_delta(&place) : 0;
}

/* Of the quoted bytes behind the quoted IP header. */
INLINE __u32 quote_sum(const __u16 *l4, __u16 pending)
{
	__u32 sum = 0;
	if (pending)
		return (__u16)~pending;
#pragma unroll
	for (int i = 0; i < QUOTED_L4 / 2; i++)
		sum += l4[i];
	return sum;
}

/* Answer the sender; the packet itself is dropped and was counted by the caller. */
INLINE int send_icmp4(void *ctx, const int hook, const struct packet *p, const struct answer *answer)
{
	__u32 quoted = 0, delta = renumbered_by(p);
	__u16 pending = 0;
	if (make_room(ctx, hook, p, IP_HEADER, &quoted, &pending))
		return dropped(hook);
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	struct icmp_header *icmp = (void *)(ip + 1);
	struct iphdr *inner = (void *)(icmp + 1);
	__u16 *l4 = (void *)(inner + 1);
	if ((void *)(l4 + QUOTED_L4 / 2) > frame_end(ctx, hook))
		return dropped(hook);
	set_quoted_seq(l4, seq_without(quoted_seq(l4), delta));
	ip->version = 4;
	ip->ihl = IP_HEADER / 4;
	ip->tos = 0;
	ip->tot_len = bpf_htons(IP_HEADER + ICMP_HEADER + IP_HEADER + quoted);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = 64;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = answer->from.word[3];
	ip->daddr = p->tuple.source.word[3];
	ip_set_checksum(ip);
	icmp->type = answer->reason == REASON_TTL ? ICMP_TIME_EXCEEDED : ICMP_DEST_UNREACH;
	icmp->code = answer->reason == REASON_TOO_BIG	  ? ICMP_FRAG_NEEDED
		     : answer->reason == REASON_NO_SERVER ? ICMP_PORT_UNREACH
		     : answer->reason == REASON_NO_ROUTE  ? ICMP_HOST_UNREACH
							  : 0;
	icmp->value = bpf_htonl(answer->mtu);
	icmp->checksum = 0;
	__u32 sum = ip_sum(inner) + bpf_htons(icmp->type << 8 | icmp->code) + (icmp->value & 0xffff) +
		    (icmp->value >> 16) + quote_sum(l4, pending);
	icmp->checksum = ~csum_fold(sum);
	count(EVENT_ICMP_SENT);
	return reflect(ctx, hook);
}

INLINE int send_icmp6(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	const struct answer *answer = &memory->answer;
	__u32 quoted = 0, delta = renumbered_by(p);
	__u16 pending = 0;
	if (make_room(ctx, hook, p, IP6_HEADER, &quoted, &pending))
		return dropped(hook);
	if (!sum_bytes(ctx, hook, &memory->sum, ETH_HLEN + IP6_HEADER + ICMP_HEADER, p->header))
		return dropped(hook);
	struct ipv6hdr *ip = frame(ctx, hook) + ETH_HLEN;
	struct icmp_header *icmp = (void *)(ip + 1);
	__u16 *l4 = (void *)(icmp + 1) + header_length(p, 6);
	if ((void *)(icmp + 1) > frame_end(ctx, hook) || (void *)(l4 + QUOTED_L4 / 2) > frame_end(ctx, hook))
		return dropped(hook);
	set_quoted_seq(l4, seq_without(quoted_seq(l4), delta));
	__u32 length = ICMP_HEADER + p->header + quoted;
	__u64 sum = memory->sum.sum;
	__builtin_memset(ip, 0, 4);
	ip->version = 6;
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, &answer->from, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &p->tuple.source, sizeof(ip->daddr));
	icmp->type = answer->reason == REASON_TTL	? ICMP6_TIME_EXCEEDED
		     : answer->reason == REASON_TOO_BIG ? ICMP6_TOO_BIG
							: ICMP6_DEST_UNREACH;
	icmp->code = answer->reason == REASON_NO_SERVER	 ? ICMP6_PORT_UNREACH
		     : answer->reason == REASON_NO_ROUTE ? ICMP6_ADDRESS_UNREACH
							 : 0;
	icmp->value = bpf_htonl(answer->mtu);
	icmp->checksum = 0;
	/* RFC 4443 2.3: with a pseudo header of both addresses, the length and the protocol */
	const __u16 *word = (const void *)&ip->saddr;
#pragma unroll
	for (__u32 i = 0; i < (IP6_HEADER - 8 + ICMP_HEADER) / 2; i++)
		sum += word[i];
	sum += bpf_htons(length) + bpf_htons(IPPROTO_ICMPV6) + quote_sum(l4, pending);
	icmp->checksum = ~fold64(sum);
	count(EVENT_ICMP_SENT);
	return reflect(ctx, hook);
}

INLINE int send_answer(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	if ((p->kind != KIND_L4 && p->kind != KIND_FIRST_FRAGMENT) || !icmp_allowed())
		return dropped(hook);
	if (p->family == 6)
		return send_icmp6(ctx, hook, memory);
	return p->header == IP_HEADER ? send_icmp4(ctx, hook, p, &memory->answer) : dropped(hook);
}

RARE(send_answer)

#endif
