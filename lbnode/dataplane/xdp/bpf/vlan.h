/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * VLAN tags (IEEE 802.1Q) at XDP, which sees frames before the kernel takes the tag off, and sends them itself: a VLAN's own
 * interface cannot. So that nothing else has to know of it, a tag is taken off first and put on last. At tcx the kernel does
 * both: packets come in by the VLAN's interface.
 */
#ifndef LBNODE_VLAN_H
#define LBNODE_VLAN_H

#include "admit.h"

#define VLAN_TAG 4
#define VLAN_ID 0x0fff
#define VLAN_PRESENT 0x10000 /* in scratch.vlan: there is a tag, perhaps with id 0 */

struct tagged {
	__u8 target_mac[ETH_ALEN];
	__u8 source_mac[ETH_ALEN];
	__be16 protocol; /* ETH_P_8021Q */
	__be16 tag;	 /* priority, drop eligible, id */
	__be16 inner;
};

/* Take the tag off and remember it. 0, or -1: not a VLAN of ours, nothing has changed. */
GLOBAL int untag(struct xdp_md *ctx, struct scratch *memory)
{
	struct tagged *eth = frame(ctx, HOOK_XDP);
	if (!memory || (void *)(eth + 1) > frame_end(ctx, HOOK_XDP))
		return -1;
	struct tagged saved = *eth;
	struct vlan_key key = {.lower = ctx->ingress_ifindex, .id = bpf_ntohs(saved.tag) & VLAN_ID};
	if (!bpf_map_lookup_elem(&vlans, &key) || bpf_xdp_adjust_head(ctx, VLAN_TAG))
		return -1;
	struct ethhdr *plain = frame(ctx, HOOK_XDP);
	if ((void *)(plain + 1) > frame_end(ctx, HOOK_XDP))
		return -1;
	copy_mac(plain->h_dest, saved.target_mac);
	copy_mac(plain->h_source, saved.source_mac);
	plain->h_proto = saved.inner;
	memory->vlan = VLAN_PRESENT | bpf_ntohs(saved.tag);
	memory->lower = 0;
	return 0;
}

/* Put the tag on that is due: that of the interface it leaves by, or, if it does not leave, the one that it came with. */
GLOBAL int tag(struct xdp_md *ctx, struct scratch *memory)
{
	if (!memory || memory->verdict == XDP_DROP)
		return XDP_DROP;
	struct ethhdr *plain = frame(ctx, HOOK_XDP);
	if ((void *)(plain + 1) > frame_end(ctx, HOOK_XDP))
		return drop(HOOK_XDP, EVENT_DROP_ERROR);
	struct ethhdr saved = *plain;
	if (bpf_xdp_adjust_head(ctx, -VLAN_TAG))
		return drop(HOOK_XDP, EVENT_DROP_ERROR);
	struct tagged *eth = frame(ctx, HOOK_XDP);
	if ((void *)(eth + 1) > frame_end(ctx, HOOK_XDP))
		return drop(HOOK_XDP, EVENT_DROP_ERROR);
	copy_mac(eth->target_mac, saved.h_dest);
	copy_mac(eth->source_mac, saved.h_source);
	eth->protocol = bpf_htons(ETH_P_8021Q);
	eth->tag = bpf_htons(memory->vlan & 0xffff);
	eth->inner = saved.h_proto;
	return memory->lower ? send(ctx, HOOK_XDP, memory->lower) : memory->verdict;
}

INLINE bool is_tagged(void *ctx)
{
	struct ethhdr *eth = frame(ctx, HOOK_XDP);
	return (void *)(eth + 1) <= frame_end(ctx, HOOK_XDP) && eth->h_proto == bpf_htons(ETH_P_8021Q);
}

/* The interface that a frame leaves by is a VLAN's: its tag is due, and the lower interface. */
INLINE bool leaves_tagged(struct scratch *memory, __u32 ifindex)
{
	struct egress *to = bpf_map_lookup_elem(&egress, &ifindex);
	memory->vlan = 0;
	if (likely(!to || !to->lower))
		return false;
	memory->vlan = VLAN_PRESENT | to->vlan;
	memory->lower = to->lower;
	return true;
}

#endif
