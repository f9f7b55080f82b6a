// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The VIP leases alone, at tc ingress before a data plane that knows none (the kernel's ip_vs). */
#include "lease_out.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NEXT (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define DROP 2	  /* TCX_DROP, TC_ACT_SHOT */
/* What is looked at: Ethernet, IPv6, a neighbour solicitation. */
#define LINEAR (ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct solicitation))

SEC("tc")
int tc_lease(struct __sk_buff *skb)
{
	if (skb->vlan_present) /* it comes again on the VLAN's interface */
		return NEXT;
	__u32 want = skb->len < LINEAR ? skb->len : LINEAR;
	/* Bundles of segments have their headers in front, and some must not be pulled about (hook.h: GSO_BY_FRAGS). */
	if ((void *)(long)skb->data + want > (void *)(long)skb->data_end && !skb->gso_size &&
	    bpf_skb_pull_data(skb, want))
		return NEXT;
	struct ethhdr *eth = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) > end)
		return NEXT;
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 event;
	if (asks_for_dark(eth, end, now))
		event = EVENT_DROP_SOLICITATION;
	else if ((skb->pkt_type == 0 /* PACKET_HOST */ || to_virtual_router(eth)) && goes_to_dark(eth, end, now))
		event = EVENT_DROP_NO_LEASE;
	else
		return NEXT;
	count(event);
	return DROP;
}
