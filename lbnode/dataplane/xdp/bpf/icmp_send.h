/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors that the gateway itself sends: fragmentation needed, port unreachable, time exceeded (RFC 792, RFC 1812
 * 4.3.2). The packet is turned into the answer in place: cut to its header and 8 bytes, 28 bytes put in front. Packets
 * with IP options get no answer.
 */
#ifndef LBNODE_ICMP_SEND_H
#define LBNODE_ICMP_SEND_H

#include "hook.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_PORT_UNREACH 3
#define ICMP_FRAG_NEEDED 4

#define ICMP_HEADER 8
#define QUOTED_L4 8
#define FRONT (IP_HEADER + ICMP_HEADER)
#define L4_AT (ETH_HLEN + IP_HEADER)

/* At most `icmp_rate` per second: the sweeper's tick refills. */
INLINE bool icmp_allowed(void)
{
	struct clock *clock = get_clock();
	if (!clock || (__s32)clock->icmp_tokens <= 0)
		return false;
	return (__s32)__sync_fetch_and_add(&clock->icmp_tokens, -1) > 0;
}

/*
 * A socket buffer may leave its L4 checksum to the device: then the bytes that we quote change after we summed them up. The
 * final ones sum up to the complement of what stands in the checksum field now (the pseudo header's sum). That it is
 * so cannot be read, but such a buffer refuses to be cut before the end of its checksum field. Cuts the packet to the quote;
 * *pending: 0, or that sum. *quoted: length of the L4 part.
 */
INLINE int quote_tc(struct __sk_buff *skb, const struct packet *p, __u32 *quoted, __u16 *pending)
{
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u8 last;
	*quoted = QUOTED_L4;
	if (bpf_skb_load_bytes(skb, L4_AT + QUOTED_L4 - 1, &last, 1))
		return -1;
	if (bpf_skb_change_tail(skb, L4_AT + QUOTED_L4 - 1, 0) == 0) {
		if (bpf_skb_change_tail(skb, L4_AT + QUOTED_L4, 0))
			return -1;
		return bpf_skb_store_bytes(skb, L4_AT + QUOTED_L4 - 1, &last, 1, 0);
	}
	*quoted = tcp ? sizeof(struct tcphdr) : QUOTED_L4;
	if (bpf_skb_load_bytes(skb, L4_AT + (tcp ? 16 : 6), pending, sizeof(*pending)))
		return -1;
	return bpf_skb_change_tail(skb, L4_AT + *quoted, 0);
}

struct answer {
	__be32 from;
	__u8 type; /* 0: none */
	__u8 code;
	__u16 mtu;
};

/* Answer the sender of `p`; the packet itself is dropped and was counted by the caller. */
INLINE int icmp_send(void *ctx, const int hook, const struct packet *p, const struct answer *answer)
{
	const int dropped = is_xdp(hook) ? XDP_DROP : TC_DROP;
	__u32 quoted = QUOTED_L4;
	__u16 pending = 0;
	if (p->kind != KIND_L4 || p->header != IP_HEADER || !icmp_allowed())
		return dropped;
	if (is_xdp(hook)) {
		int surplus = frame_len(ctx, hook) - (L4_AT + QUOTED_L4);
		if (surplus < 0 || bpf_xdp_adjust_tail(ctx, -surplus))
			return dropped;
		struct ethhdr *eth = frame(ctx, hook);
		if ((void *)(eth + 1) > frame_end(ctx, hook))
			return dropped;
		struct ethhdr saved = *eth;
		if (bpf_xdp_adjust_head(ctx, -FRONT))
			return dropped;
		eth = frame(ctx, hook);
		if ((void *)(eth + 1) > frame_end(ctx, hook))
			return dropped;
		*eth = saved;
	} else {
		if (quote_tc(ctx, p, &quoted, &pending))
			return dropped;
		if (bpf_skb_adjust_room(ctx, FRONT, BPF_ADJ_ROOM_MAC, 0))
			return dropped;
	}
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN, *inner = data + ETH_HLEN + FRONT;
	struct icmp_header *icmp = data + ETH_HLEN + IP_HEADER;
	__u16 *l4 = (void *)(inner + 1);
	if ((void *)(l4 + QUOTED_L4 / 2) > end)
		return dropped;
	ip->version = 4;
	ip->ihl = IP_HEADER / 4;
	ip->tos = 0;
	ip->tot_len = bpf_htons(FRONT + IP_HEADER + quoted);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = 64;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = answer->from;
	ip->daddr = p->tuple.source.word[3];
	ip_set_checksum(ip);
	icmp->type = answer->type;
	icmp->code = answer->code;
	icmp->checksum = 0;
	icmp->unused = 0;
	icmp->mtu = bpf_htons(answer->mtu);
	__u32 sum = ip_sum(inner) + bpf_htons(answer->type << 8 | answer->code) + icmp->mtu;
	if (pending) {
		sum += (__u16)~pending;
	} else {
#pragma unroll
		for (int i = 0; i < QUOTED_L4 / 2; i++)
			sum += l4[i];
	}
	icmp->checksum = ~csum_fold(sum);
	count(EVENT_ICMP_SENT);
	return reflect(ctx, hook);
}

#endif
