/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The forwarding methods: masquerade in both directions, direct routing, tunnels. Every one decrements the TTL, as IPVS. */
#ifndef LBNODE_FORWARD_H
#define LBNODE_FORWARD_H

#include "decide.h"
#include "icmp.h"
#include "sctp.h"
#include "tunnel.h"
#include "vlan.h"

/*
 * Network address translation of the source or the target, with TTL. 0, or -1: the packet cannot be written. UDP's
 * checksum 0 means that there is none (RFC 768): it stays, and none becomes it.
 */
INLINE int translate(void *ctx, const int hook, const struct packet *p, bool source, const struct addr *new,
		     __be16 new_port, const int family)
{
	__be16 old_port = source ? p->tuple.source_port : p->tuple.target_port;
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u32 header = header_length(p, family);
	__u64 delta = addr_delta(source ? &p->tuple.source : &p->tuple.target, new, family);
	if (hook == HOOK_TC) {
		__u32 at = ETH_HLEN + header + (tcp ? TCP_CHECK_AT : UDP_CHECK_AT);
		__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0, folded = (delta & 0xffffffff) + (delta >> 32);
		folded = (folded & 0xffffffff) + (folded >> 32);
		if (bpf_l4_csum_replace(ctx, at, 0, folded, flags | BPF_F_PSEUDO_HDR))
			return -1;
		if (old_port != new_port && bpf_l4_csum_replace(ctx, at, old_port, new_port, flags | 2))
			return -1;
	}
	void *end = frame_end(ctx, hook);
	void *ip = frame(ctx, hook) + ETH_HLEN;
	if (ip + (family == 6 ? IP6_HEADER : IP_HEADER) > end)
		return -1;
	__be16 *l4 = ip + header;
	if ((void *)(l4 + 4) > end)
		return -1;
	if (is_xdp(hook)) {
		__u64 change = delta + (__u16)~old_port + new_port;
		if (tcp) {
			if ((void *)(l4 + 9) > end)
				return -1;
			csum_add(&l4[TCP_CHECK_AT / 2], change);
		} else if (l4[UDP_CHECK_AT / 2]) {
			csum_add(&l4[UDP_CHECK_AT / 2], change);
			if (!l4[UDP_CHECK_AT / 2])
				l4[UDP_CHECK_AT / 2] = 0xffff;
		}
	}
	l4[source ? 0 : 1] = new_port;
	if (family == 6) {
		struct ipv6hdr *ip6 = ip;
		__builtin_memcpy(source ? &ip6->saddr : &ip6->daddr, new, sizeof(ip6->saddr));
		ip6->hop_limit--;
	} else {
		struct iphdr *ip4 = ip;
		*(source ? &ip4->saddr : &ip4->daddr) = new->word[3];
		ip4->ttl--;
		csum_add(&ip4->check, delta + (__u16)~bpf_htons(0x100)); /* one less in the upper byte */
	}
	return 0;
}

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
	find_hop(ctx, hook, &memory->route, hop, source, &server->address, p->tos, length, family);
}

/* The address alone: of a later fragment, which has no ports; no checksum covers it but the IPv4 header's. */
INLINE int translate_address(void *ctx, const int hook, const struct packet *p, const struct rewrite *to)
{
	struct ipv6hdr *ip6 = frame(ctx, hook) + ETH_HLEN;
	struct iphdr *ip = (void *)ip6;
	if (p->family == 6) {
		if ((void *)(ip6 + 1) > frame_end(ctx, hook))
			return -1;
		__builtin_memcpy(to->source ? &ip6->saddr : &ip6->daddr, &to->address, sizeof(ip6->saddr));
		ip6->hop_limit--;
		return 0;
	}
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	ip_set_addr(ip, to->source, to->address.word[3]);
	ip_decrement_ttl(ip);
	return 0;
}

INLINE int translate_rare(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	if (p->kind == KIND_FRAGMENT)
		return translate_address(ctx, hook, p, &memory->rewrite);
	if (p->kind != KIND_ICMP_ERROR) {
		if (translate_sctp_port(ctx, hook, p, &memory->rewrite))
			return -1;
		return translate_address(ctx, hook, p, &memory->rewrite);
	}
	return p->family == 6 ? translate_error6(ctx, hook, p, &memory->rewrite)
			      : translate_error4(ctx, hook, p, &memory->rewrite);
}

RARE(translate_rare)

/* Give the packet its new addresses; `server` NULL: the client's side. */
INLINE int masquerade(void *ctx, const int hook, struct scratch *memory, const struct server *server, const int family)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	const struct addr *new = server ? &server->address : &d->vip;
	bool ports = p->kind == KIND_L4 || p->kind == KIND_FIRST_FRAGMENT;
	__be16 old_port = likely(ports) ? p->tuple.target_port : p->quoted.source_port;
	__be16 new_port = server ? server_port(server, old_port) : d->vip_port;
	if (likely(ports && p->tuple.protocol != IPPROTO_SCTP))
		return translate(ctx, hook, p, !server, new, new_port, family);
	memory->rewrite.address = *new;
	memory->rewrite.port = new_port;
	memory->rewrite.delta = p->kind == KIND_ICMP_ERROR ? d->delta : 0;
	/* A packet that is quoted ran against the error. */
	memory->rewrite.source = (p->kind == KIND_ICMP_ERROR) == (server != NULL);
	return call_translate_rare(ctx, hook, memory);
}

/* Send a packet that is otherwise ready. `routable`: its target address leads the network stack to the same place. */
INLINE int emit(void *ctx, const int hook, struct scratch *memory, bool routable)
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
		/* the driver has no metadata: let the stack route it, if it can */
		return routable ? XDP_PASS : drop(hook, EVENT_DROP_NO_ROUTE);
	default:
		if (!routable)
			return drop(hook, EVENT_DROP_NO_ROUTE);
		count(EVENT_STACK);
		return pass(hook);
	}
}

/*
 * Send a packet where the decision says: to a server, or what a masqueraded server said (or an error about what it got) to
 * the client, where its source becomes the VIP again.
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
	const struct addr *vip = server ? &p->tuple.target : &d->vip;
	if (unlikely(p->ttl <= 1)) {
		count(EVENT_DROP_TTL);
		return refuse(hook, memory, vip, REASON_TTL, 0);
	}
	if (server)
		server_hop(ctx, hook, memory, server, length, family);
	else
		find_hop(ctx, hook, &memory->route, hop, vip, &p->tuple.target, p->tos, length, family);
	if (unlikely(hop->result == HOP_TOO_BIG)) {
		count(EVENT_DROP_TOO_BIG);
		if (!p->dont_fragment || hop->mtu <= overhead)
			return dropped(hook);
		return refuse(hook, memory, vip, REASON_TOO_BIG, hop->mtu - overhead);
	}
	int failed;
	if (method == FORWARD_MASQUERADE)
		failed = masquerade(ctx, hook, memory, server, family);
	else if (method == FORWARD_TUNNEL && family == 4 && likely(overhead == IP_HEADER))
		failed = encapsulate_ipip(ctx, hook, memory, server);
	else if (method == FORWARD_TUNNEL)
		failed = call_encapsulate(ctx, hook, memory);
	else
		failed = hop->result == HOP_STACK ? 0 : decrement_ttl(ctx, hook, family);
	if (unlikely(failed))
		return drop(hook, failed > 0 ? failed : EVENT_DROP_ERROR);
	if (p->kind == KIND_ICMP_ERROR)
		count(EVENT_ICMP_TRANSLATED);
	return emit(ctx, hook, memory, method != FORWARD_DIRECT);
}

INLINE int forward6(void *ctx, const int hook, struct scratch *memory)
{
	return forward(ctx, hook, memory, 6);
}

RARE(forward6)

#endif
