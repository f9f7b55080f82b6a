/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The forwarding methods: masquerade in both directions, direct routing, IPIP. Every one decrements the TTL, as IPVS. */
#ifndef LBNODE_FORWARD_H
#define LBNODE_FORWARD_H

#include "decide.h"
#include "icmp.h"

#define TCP_CHECK_AT 16 /* offsetof(struct tcphdr, check) */
#define UDP_CHECK_AT 6

/* UDP's checksum 0 means that there is none (RFC 768): it stays, and none becomes it. */
INLINE void udp_replace(struct udphdr *udp, __be32 old, __be32 new, __be16 old_port, __be16 new_port)
{
	if (!udp->check)
		return;
	csum_replace4(&udp->check, old, new);
	csum_replace2(&udp->check, old_port, new_port);
	if (!udp->check)
		udp->check = 0xffff;
}

/* Network address translation of the source or the target, with TTL. 0, or -1: the packet cannot be written. */
INLINE int translate(void *ctx, const int hook, const struct packet *p, bool source, __be32 new, __be16 new_port)
{
	__be32 old = source ? p->tuple.source.word[3] : p->tuple.target.word[3];
	__be16 old_port = source ? p->tuple.source_port : p->tuple.target_port;
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u32 header = header_length(p);
	if (hook == HOOK_TC) {
		__u32 at = ETH_HLEN + header + (tcp ? TCP_CHECK_AT : UDP_CHECK_AT);
		__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
		if (bpf_l4_csum_replace(ctx, at, old, new, flags | BPF_F_PSEUDO_HDR | 4))
			return -1;
		if (old_port != new_port && bpf_l4_csum_replace(ctx, at, old_port, new_port, flags | 2))
			return -1;
	}
	void *end = frame_end(ctx, hook);
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return -1;
	void *l4 = (void *)ip + header;
	if (is_xdp(hook)) {
		if (tcp) {
			struct tcphdr *th = l4;
			if ((void *)(th + 1) > end)
				return -1;
			csum_replace4(&th->check, old, new);
			csum_replace2(&th->check, old_port, new_port);
		} else {
			struct udphdr *uh = l4;
			if ((void *)(uh + 1) > end)
				return -1;
			udp_replace(uh, old, new, old_port, new_port);
		}
	}
	__be16 *port = l4;
	if ((void *)(port + 2) > end)
		return -1;
	port[source ? 0 : 1] = new_port;
	ip_set_addr(ip, source, new);
	ip_decrement_ttl(ip);
	return 0;
}

INLINE int decrement_ttl(void *ctx, const int hook)
{
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	ip_decrement_ttl(ip);
	return 0;
}

/* IP in IP (RFC 2003). The outer header takes TOS, DF and identification from the inner one. */
INLINE int encapsulate(void *ctx, const int hook, const struct packet *p, const struct server *server)
{
	if (decrement_ttl(ctx, hook))
		return -1;
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	__be16 id = ip->id;
	if (is_xdp(hook)) {
		if (bpf_xdp_adjust_head(ctx, -IP_HEADER))
			return -1;
	} else {
		/* GSO of TCP: segments become smaller by the new header. UDP's datagrams must keep their size. */
		__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
		if (p->tuple.protocol != IPPROTO_TCP)
			flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
		if (bpf_skb_adjust_room(ctx, IP_HEADER, BPF_ADJ_ROOM_MAC, flags))
			return -1;
	}
	struct ethhdr *eth = frame(ctx, hook);
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	eth->h_proto = bpf_htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = IP_HEADER / 4;
	ip->tos = p->tos;
	ip->tot_len = bpf_htons(p->length + IP_HEADER);
	ip->id = id;
	ip->frag_off = p->dont_fragment ? bpf_htons(IP_DF) : 0;
	ip->ttl = IPIP_TTL;
	ip->protocol = IPPROTO_IPIP;
	ip->saddr = server->tunnel_source.word[3] ? server->tunnel_source.word[3] : p->tuple.source.word[3];
	ip->daddr = server->address.word[3];
	ip_set_checksum(ip);
	return 0;
}

/* The next hop of a server: what the control plane found, or what the kernel says now. */
INLINE void server_hop(void *ctx, const int hook, struct scratch *memory, const struct server *server, __u32 length,
		       struct hop *hop)
{
	const struct packet *p = &memory->packet;
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
	__be32 source = server->forward == FORWARD_TUNNEL ? server->tunnel_source.word[3] : p->tuple.source.word[3];
	find_hop(ctx, hook, &memory->route, hop, source, server->address.word[3], p->tos, length);
}

/* The packet cannot go on: the sender shall hear why. */
INLINE int refuse(const int hook, struct answer *answer, __be32 from, __u8 type, __u8 code, __u16 mtu)
{
	answer->from = from;
	answer->type = type;
	answer->code = code;
	answer->mtu = mtu;
	return is_xdp(hook) ? XDP_DROP : TC_DROP;
}

/*
 * Send a packet where the decision says. `server` NULL: a masqueraded server's reply (or an error about what the server got)
 * to the client, its source becomes the VIP again.
 */
INLINE int forward(void *ctx, const int hook, struct scratch *memory, const struct server *server,
		   struct answer *answer)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	__u32 method = server ? server->forward : FORWARD_MASQUERADE;
	__u32 overhead = method == FORWARD_TUNNEL ? IP_HEADER : 0;
	__be32 vip = server ? p->tuple.target.word[3] : d->vip.word[3];
	struct hop hop = {}; /* Linux 6.1 refuses to read what nobody wrote, also where it means nothing */
	if (unlikely(p->ttl <= 1)) {
		count(EVENT_DROP_TTL);
		return refuse(hook, answer, vip, ICMP_TIME_EXCEEDED, 0, 0);
	}
	if (server)
		server_hop(ctx, hook, memory, server, wire_length(ctx, hook, p) + overhead, &hop);
	else
		find_hop(ctx, hook, &memory->route, &hop, vip, p->tuple.target.word[3], p->tos,
			 wire_length(ctx, hook, p));
	if (unlikely(hop.result == HOP_TOO_BIG)) {
		if (!p->dont_fragment || hop.mtu <= overhead)
			return drop(hook, EVENT_DROP_TOO_BIG);
		count(EVENT_DROP_TOO_BIG);
		return refuse(hook, answer, vip, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, hop.mtu - overhead);
	}
	int failed;
	if (method == FORWARD_MASQUERADE) {
		__be32 new = server ? server->address.word[3] : vip;
		__be16 new_port = server ? server->port : d->vip_port;
		if (p->kind == KIND_L4)
			failed = translate(ctx, hook, p, !server, new, new_port);
		else
			failed = translate_error(ctx, hook, p, server, new, new_port);
	} else if (method == FORWARD_TUNNEL) {
		failed = encapsulate(ctx, hook, p, server);
	} else {
		failed = hop.result == HOP_STACK ? 0 : decrement_ttl(ctx, hook);
	}
	if (unlikely(failed))
		return drop(hook, EVENT_DROP_ERROR);
	if (p->kind == KIND_ICMP_ERROR)
		count(EVENT_ICMP_TRANSLATED);
	return emit(ctx, hook, &hop, method != FORWARD_DIRECT);
}

#endif
