/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tc egress: what the network stack itself sends must not name a VIP without lease as its own address. The kernel of a node
 * whose processes are dead goes on resolving neighbours, and where the VIP is its only address on a network, it asks in the
 * VIP's name: everybody there would send the VIP's packets to it.
 */
#ifndef LBNODE_LEASE_OUT_H
#define LBNODE_LEASE_OUT_H

#include "events.h"
#include "lease.h"

#define NEIGHBOUR_ADVERTISEMENT 136

static __always_inline bool claims_dark(const struct ethhdr *eth, const void *end, __u64 now)
{
	const struct arp *arp = (const void *)(eth + 1);
	const struct ipv6hdr *ip = (const void *)(eth + 1);
	/* RFC 4861 4.4: an advertisement has the same form. */
	const struct solicitation *message = (const void *)(ip + 1);
	if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		__be32 sender;
		if ((void *)(arp + 1) > end)
			return false;
		__builtin_memcpy(&sender, arp->sender, sizeof(sender));
		return is_dark_v4(sender, now);
	}
	if (eth->h_proto != bpf_htons(ETH_P_IPV6) || (void *)(message + 1) > end || ip->nexthdr != IPPROTO_ICMPV6)
		return false;
	if (message->type == NEIGHBOUR_SOLICITATION)
		return is_dark_v6(&ip->saddr, now);
	return message->type == NEIGHBOUR_ADVERTISEMENT && is_dark_v6(message->target, now);
}

SEC("tc")
int tc_lease_out(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_ARP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return -1; /* TCX_NEXT, TC_ACT_UNSPEC */
	struct ethhdr *eth = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) > end || !claims_dark(eth, end, bpf_ktime_get_boot_ns()))
		return -1;
	count(EVENT_DROP_CLAIM);
	return 2; /* TCX_DROP, TC_ACT_SHOT */
}

#endif
