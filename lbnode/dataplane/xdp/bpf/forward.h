/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Forwarding: the next hop, what the method makes of the packet, and off it goes. */
#ifndef LBNODE_FORWARD_H
#define LBNODE_FORWARD_H

#include "clamp.h"
#include "fullnat.h"
#include "reply_hop.h"
#include "tunnel.h"
#include "vlan.h"

/* The next hop of a server: what the control plane found, or what the kernel says now. */
INLINE void server_hop(void *ctx, const int hook, struct scratch *memory, const struct server *server, __u32 length,
		       int family)
{
	const struct packet *p = &memory->packet;
	struct hop *hop = &memory->hop;
	if (likely(server->flags & SERVER_HOP)) {
		__u32 mtu = server->mtu;
		hop->result = HOP_OK;
		hop->ifindex = server->ifindex;
		copy_mac(hop->target_mac, server->target_mac);
		copy_mac(hop->source_mac, server->source_mac);
		if (unlikely(mtu && length > mtu)) {
			hop->result = HOP_TOO_BIG;
			hop->mtu = mtu;
		}
		return;
	}
	const struct addr *source = &p->tuple.source;
	if (server->forward == FORWARD_TUNNEL) {
		family = addr_is_v4(&server->address) ? 4 : 6;
		source = &server->tunnel_source;
	}
	if (memory->decision.full)
		source = &memory->decision.other;
	find_hop(ctx, hook, &memory->route, hop, source, &server->address, p->tos, length, family);
}

/* Whether a packet keeps the client as its source and gets the server as its target: the stack routes that like any other. */
INLINE bool is_masqueraded(const struct decision *d, const struct server *server)
{
	return server && is_translated(server->forward) && !d->full;
}

/*
 * A packet that is otherwise ready goes to the network stack, which routes it and decrements its TTL; a tunnel's outer header
 * has its own. The stack does not route one to the VIP (direct routing), which is this node's own; nor, with IPv4, one
 * from an address of this node (full NAT, tunnels, what goes to the client), which it takes for a forgery (RFC 1812 5.3.7).
 */
INLINE int leave_to_stack(void *ctx, const int hook, struct scratch *memory)
{
	const struct decision *d = &memory->decision;
	struct server *server = NULL;
	bool v6 = memory->packet.family == 6, tunnel = false, direct = false;
	if (memory->action == ACTION_TO_SERVER) {
		server = get_server(d->server, d->generation);
		if (!server)
			return drop(hook, EVENT_DROP_SERVER_GONE);
		direct = server->forward == FORWARD_DIRECT;
		tunnel = server->forward == FORWARD_TUNNEL;
		if (tunnel)
			v6 = !addr_is_v4(&server->address);
	}
	if (direct || !(v6 || is_masqueraded(d, server)))
		return drop(hook, EVENT_DROP_NO_ROUTE);
	if (!tunnel && (v6 ? change_ttl(ctx, hook, 6, 1) : change_ttl(ctx, hook, 4, 1)))
		return drop(hook, EVENT_DROP_ERROR);
	count(EVENT_STACK);
	return pass(hook);
}

RARE(leave_to_stack)

/* Send a packet that is otherwise ready. */
INLINE int emit(void *ctx, const int hook, struct scratch *memory)
{
	const struct hop *hop = &memory->hop;
	struct ethhdr *eth;
	switch (hop->result) {
	case HOP_OK:
		eth = frame(ctx, hook);
		if ((void *)(eth + 1) > frame_end(ctx, hook))
			return drop(hook, EVENT_DROP_ERROR);
		copy_mac(eth->h_dest, hop->target_mac);
		copy_mac(eth->h_source, hop->source_mac);
		if (is_xdp(hook) && unlikely(leaves_tagged(memory, hop->ifindex)))
			return XDP_TX;
		return send(ctx, hook, hop->ifindex);
	case HOP_NO_NEIGHBOUR:
		count(EVENT_NO_NEIGHBOUR);
		if (hook == HOOK_TC)
			return redirect_neighbour(hop->ifindex, hop->family, hop->gateway);
		/* some drivers have no metadata */
		if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct handover)) == 0) {
			struct handover *handover = (void *)(long)((struct xdp_md *)ctx)->data_meta;
			if ((void *)(handover + 1) > frame(ctx, hook))
				return drop(hook, EVENT_DROP_ERROR);
			handover->magic = HANDOVER_MAGIC;
			handover->ifindex = hop->ifindex;
			handover->family = hop->family;
			__builtin_memcpy(handover->gateway, hop->gateway, sizeof(handover->gateway));
			memory->vlan = 0;
			return XDP_PASS;
		}
	}
	return call_leave_to_stack(ctx, hook, memory);
}

/* Whether the segments of a bundle, whose lengths the kernel alone knows, fit the next hop. */
INLINE int measure_bundle(void *ctx, const int hook, struct scratch *memory)
{
	struct hop *hop = &memory->hop;
	__u32 mtu = 0;
	if (hop->result == HOP_OK && bpf_check_mtu(ctx, hop->ifindex, &mtu, 0, BPF_MTU_CHK_SEGS) > 0) {
		hop->result = HOP_TOO_BIG;
		hop->mtu = mtu;
	}
	return 0;
}

RARE(measure_bundle)

/*
 * Send a packet where the decision says: to a server, or what a server said by masquerade or full NAT (or an error about
 * what it got) to the client, where its source becomes the VIP again.
 */
INLINE int forward(void *ctx, const int hook, struct scratch *memory, const int family)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	struct hop *hop = &memory->hop;
	struct server *server = NULL;
	if (memory->action == ACTION_TO_SERVER) {
		server = get_server(d->server, d->generation);
		if (!server)
			return drop(hook, EVENT_DROP_SERVER_GONE);
	}
	/* Or the compiler asks for the action again, which tells the verifier nothing. */
	asm volatile("" : "+r"(server));
	if (unlikely(server && server->flags & SERVER_LOCAL))
		return pass(hook);
	__u32 method = server ? server->forward : FORWARD_MASQUERADE;
	__u32 overhead = server ? server->overhead : 0, length = wire_length(ctx, hook, p) + overhead;
	/* Whom a sender hears of: the VIP, or with full NAT the local address that a server knows */
	const struct addr *known = server || d->full ? &p->tuple.target : &d->vip;
	if (unlikely(p->ttl <= 1)) {
		count(EVENT_DROP_TTL);
		return refuse(hook, memory, known, REASON_TTL, 0);
	}
	if (server)
		server_hop(ctx, hook, memory, server, length, family);
	else if (call_find_reply_hop(ctx, hook, memory))
		return drop(hook, EVENT_DROP_ERROR);
	if (hook == HOOK_TC && unlikely(length == overhead)) {
		if (method == FORWARD_TUNNEL) /* Linux puts headers in front of bundles of TCP and UDP alone */
			return drop(hook, EVENT_DROP_BUNDLE);
		call_measure_bundle(ctx, hook, memory);
	}
	if (unlikely(hop->result == HOP_NO_ROUTE)) {
		count(EVENT_DROP_NO_ROUTE);
		return refuse(hook, memory, known, REASON_NO_ROUTE, 0);
	}
	if (unlikely(hop->result == HOP_TOO_BIG)) {
		if (p->dont_fragment) {
			count(EVENT_DROP_TOO_BIG);
			if (hop->mtu <= overhead)
				return dropped(hook);
			return refuse(hook, memory, known, REASON_TOO_BIG, hop->mtu - overhead);
		}
		/* No program can make two packets of one; the stack fragments what it routes. */
		if (!is_masqueraded(d, server))
			return drop(hook, EVENT_DROP_UNFRAGMENTED);
	}
	if (may_be_clamped(p, server) && call_clamp(ctx, hook, memory))
		return drop(hook, EVENT_DROP_ERROR);
	int failed;
	if (unlikely(d->full))
		failed = call_fullnat(ctx, hook, memory);
	else if (method == FORWARD_MASQUERADE ||
		 method == FORWARD_FULLNAT) /* a connection from before it was full NAT */
		failed = masquerade(ctx, hook, memory, server, family);
	else if (method == FORWARD_TUNNEL && family == 4 && likely(overhead == IP_HEADER))
		failed = encapsulate_ipip(ctx, hook, memory, server);
	else if (method == FORWARD_TUNNEL)
		failed = call_encapsulate(ctx, hook, memory);
	else
		failed = decrement_ttl(ctx, hook, family);
	if (unlikely(failed))
		return drop(hook, failed > 0 ? failed : EVENT_DROP_ERROR);
	if (p->kind == KIND_ICMP_ERROR)
		count(EVENT_ICMP_TRANSLATED);
	return emit(ctx, hook, memory);
}

INLINE int forward6(void *ctx, const int hook, struct scratch *memory)
{
	return forward(ctx, hook, memory, 6);
}

RARE(forward6)

#endif
