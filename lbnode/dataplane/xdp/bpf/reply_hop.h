/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The next hop of what goes to clients. The kernel's look-up costs as much as all the rest of a reply, so its answer is
 * remembered, with all that was asked. It holds until user space sees a change of anything that the look-up rests on, and
 * for a second at most: for what is not announced (a path MTU that was learnt), and while nobody listens. Of clients that
 * share a place the first one keeps it for so long: taking turns would cost each of them a write and give it nothing.
 */
#ifndef LBNODE_REPLY_HOP_H
#define LBNODE_REPLY_HOP_H

#include "admit.h"

#define REPLY_HOP_MS 1000
#define REPLY_HOPS 16384 /* a power of two; 1 MB for each CPU */

/* What find_hop() was told but for the packet's length, and its answer. As large as a cache line. */
struct reply_hop {
	struct addr vip;
	struct addr client;
	__u32 ingress;
	__u32 routes; /* map `routes` before the look-up */
	__u32 since_ms;
	__u32 ifindex;
	__u8 target_mac[ETH_ALEN];
	__u8 source_mac[ETH_ALEN];
	__u16 mtu;
	__u8 tos; /* IPv4: ROUTE_TOS of it */
	__u8 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REPLY_HOPS);
	__type(key, __u32);
	__type(value, struct reply_hop);
} reply_hops SEC(".maps");

/* By client: a node has few VIPs and interfaces. */
INLINE struct reply_hop *get_reply_hop(const struct addr *client)
{
	__u64 half = client->half[0] ^ client->half[1];
	__u32 slot = mix((__u32)(half ^ half >> 32)) >> 40 & (REPLY_HOPS - 1);
	return bpf_map_lookup_elem(&reply_hops, &slot);
}

/* With many clients the entry is in no near cache: ask for it while the connection is looked for. */
INLINE void await_reply_hop(const struct addr *client)
{
	struct reply_hop *known = get_reply_hop(client);
	if (known)
		(void)*(volatile __u32 *)&known->since_ms;
}

INLINE __u32 get_routes(void)
{
	__u32 zero = 0;
	__u32 *generation = bpf_map_lookup_elem(&routes, &zero);
	return generation ? *(volatile __u32 *)generation : 0;
}

/* For a packet that is to have the VIP as its source. */
INLINE int find_reply_hop(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	const struct addr *client = d->full ? &d->other : &p->tuple.target;
	struct hop *hop = &memory->hop;
	struct clock *clock = get_clock();
	struct reply_hop *known = get_reply_hop(client);
	__u32 length = wire_length(ctx, hook, p), in = ingress(ctx, hook), generation = get_routes();
	__u8 tos = p->family == 6 ? 0 : p->tos & ROUTE_TOS;
	if (!known || !clock)
		return -1;
	__u32 now = clock->now_ms;
	bool holds = known->routes == generation && now - known->since_ms < REPLY_HOP_MS;
	if (likely(holds && addr_equal(&known->client, client) && addr_equal(&known->vip, &d->vip) &&
		   known->ingress == in && known->tos == tos)) {
		hop->ifindex = known->ifindex;
		hop->mtu = known->mtu;
		copy_mac(hop->target_mac, known->target_mac);
		copy_mac(hop->source_mac, known->source_mac);
		hop->result = likely(length <= known->mtu) ? HOP_OK : HOP_TOO_BIG;
		return 0;
	}
	find_hop(ctx, hook, &memory->route, hop, &d->vip, client, p->tos, length, p->family);
	if (holds || hop->result != HOP_OK || !memory->route.mtu_result)
		return 0;
	known->vip = d->vip;
	known->client = *client;
	known->ingress = in;
	known->routes = generation;
	known->since_ms = now;
	known->ifindex = hop->ifindex;
	known->mtu = memory->route.mtu_result;
	known->tos = tos;
	copy_mac(known->target_mac, hop->target_mac);
	copy_mac(known->source_mac, hop->source_mac);
	return 0;
}

/* A function of its own for the sake of its callers' stack. */
RARE(find_reply_hop)

#endif
