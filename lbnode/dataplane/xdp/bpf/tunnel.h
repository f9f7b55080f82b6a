/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnels to servers, as ip_vs_xmit.c builds them: IP in IP (RFC 2003, RFC 2473, RFC 4213), GUE in UDP
 * (draft-ietf-intarea-gue) and GRE (RFC 2784); client and server may be of different families. The outer header takes
 * TOS, DF and identification from the inner one.
 */
#ifndef LBNODE_TUNNEL_H
#define LBNODE_TUNNEL_H

#include "icmp_send.h"

#define OUTER_TTL 64
#define GRE_CHECKSUM 0x8000
#define FLOW_PORTS 0xc000 /* GUE: source ports are taken from the dynamic ones, by flow, as RFC 7510 section 3 has it */

struct gue_header {
	struct udphdr udp;
	__u8 version_length; /* version 0, data message, no optional words */
	__u8 protocol;
	__be16 flags;
};

struct gre_header {
	__be16 flags;
	__be16 protocol;
	__u16 checksum; /* with GRE_CHECKSUM only, as the next */
	__u16 reserved;
};

/*
 * Room for `front` bytes of outer headers behind the Ethernet header, which gets the outer protocol. `addressed`: its
 * addresses need not be kept, the next hop's come.
 */
INLINE int push_outer(void *ctx, const int hook, const struct packet *p, __u32 front, const bool outer6, __u64 flags,
		      bool addressed)
{
	struct ethhdr *eth = frame(ctx, hook), saved = {};
	if (is_xdp(hook)) {
		if ((void *)(eth + 1) > frame_end(ctx, hook))
			return -1;
		if (unlikely(!addressed))
			saved = *eth;
		if (bpf_xdp_adjust_head(ctx, -(int)front))
			return -1;
	} else {
		/* GSO of TCP: segments become smaller by the new headers. UDP's datagrams must keep their size. */
		flags |= outer6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
		if (p->tuple.protocol != IPPROTO_TCP)
			flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
		if (bpf_skb_adjust_room(ctx, front, BPF_ADJ_ROOM_MAC, flags))
			return -1;
	}
	eth = frame(ctx, hook);
	if ((void *)(eth + 1) > frame_end(ctx, hook))
		return -1;
	if (is_xdp(hook) && unlikely(!addressed))
		*eth = saved;
	eth->h_proto = outer6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return 0;
}

INLINE void write_outer4(struct iphdr *ip, const struct packet *p, __u32 front, __be16 id, __u8 protocol, __be32 source,
			 __be32 target)
{
	ip->version = 4;
	ip->ihl = IP_HEADER / 4;
	ip->tos = p->tos;
	ip->tot_len = bpf_htons(p->length + front);
	ip->id = id;
	ip->frag_off = p->dont_fragment ? bpf_htons(IP_DF) : 0;
	ip->ttl = OUTER_TTL;
	ip->protocol = protocol;
	ip->saddr = source;
	ip->daddr = target;
	ip_set_checksum(ip);
}

INLINE void write_outer6(struct ipv6hdr *ip, const struct packet *p, __u32 front, __u8 protocol,
			 const struct addr *source, const struct addr *target)
{
	ip->version = 6;
	ip->priority = p->tos >> 4;
	ip->flow_lbl[0] = p->tos << 4;
	ip->flow_lbl[1] = ip->flow_lbl[2] = 0;
	ip->payload_len = bpf_htons(p->length + front - IP6_HEADER);
	ip->nexthdr = protocol;
	ip->hop_limit = OUTER_TTL;
	__builtin_memcpy(&ip->saddr, source, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, target, sizeof(ip->daddr));
}

/* The commonest one, in the common path: IPv4 in IPv4. */
INLINE int encapsulate_ipip(void *ctx, const int hook, struct scratch *memory, const struct server *server)
{
	const struct packet *p = &memory->packet;
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	if (decrement_ttl(ctx, hook, 4) || (void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	__be16 id = ip->id;
	if (push_outer(ctx, hook, p, IP_HEADER, false, 0, memory->hop.result == HOP_OK))
		return -1;
	ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	__be32 source = server->tunnel_source.word[3] ? server->tunnel_source.word[3] : p->tuple.source.word[3];
	write_outer4(ip, p, IP_HEADER, id, IPPROTO_IPIP, source, server->address.word[3]);
	return 0;
}

/*
 * One's complement sum of the whole packet, for checksums in outer headers. Mostly without reading it: an IPv4 header sums up
 * to nothing, what a checksum protects to the complement of its pseudo header (also where the device is going to fill it in:
 * "local checksum offload", Documentation/networking/checksum-offloads.rst). False: too long to sum up.
 */
INLINE bool inner_sum(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct sum *s = &memory->sum;
	__be16 check = 1;
	bool v6 = p->family == 6, protected = p->kind == KIND_L4 || p->kind == KIND_ICMP_ERROR;
	protected &= p->tuple.protocol != IPPROTO_SCTP; /* its CRC is no sum */
	if (p->kind == KIND_L4 && p->tuple.protocol == IPPROTO_UDP &&
	    load_bytes(ctx, hook, ETH_HLEN + p->header + UDP_CHECK_AT, &check, sizeof(check)))
		return false;
	protected &= check != 0;
	if (!sum_bytes(ctx, hook, s, ETH_HLEN, !protected ? p->length : v6 ? p->header : 0))
		return false;
	if (protected && p->tuple.protocol != IPPROTO_ICMP) /* which has no pseudo header */
		s->sum += (__u16)~fold64(
			pseudo_sum(&p->tuple.source, &p->tuple.target, p->length - p->header, p->tuple.protocol, v6));
	return true;
}

INLINE void write_gue(struct gue_header *gue, const struct packet *p, const struct server *server, __u8 protocol)
{
	__u32 hash = tuple_hash(&p->tuple, 0);
	gue->udp.source = bpf_htons(FLOW_PORTS | (hash & ~FLOW_PORTS & 0xffff));
	gue->udp.dest = server->tunnel_port;
	gue->udp.len = bpf_htons(p->length + sizeof(*gue));
	gue->udp.check = 0;
	gue->version_length = 0;
	gue->protocol = protocol;
	gue->flags = 0;
}

INLINE __u64 words_sum(const void *data, const __u32 bytes)
{
	__u64 sum = 0;
#pragma unroll
	for (__u32 i = 0; i < bytes / 2; i++)
		sum += ((const __u16 *)data)[i];
	return sum;
}

/* 0, or the event that tells why the packet has to be dropped. Bundles of SCTP do not come here (forward.h). */
INLINE int encapsulate_in(void *ctx, const int hook, struct scratch *memory, const struct server *server,
			  const bool outer6)
{
	const struct packet *p = &memory->packet;
	const bool v6 = p->family == 6;
	const __u32 outer = outer6 ? IP6_HEADER : IP_HEADER, front = server->overhead;
	const struct addr *source = &server->tunnel_source;
	__u8 inner_protocol = v6 ? IPPROTO_IPV6 : IPPROTO_IPIP, protocol = inner_protocol;
	__u64 flags = 0;
	__be16 id = 0;
	bool checksum = server->flags & SERVER_TUNNEL_CHECKSUM;
	if (!source->half[0] && !source->half[1]) {
		if (v6 != outer6)
			return EVENT_DROP_NO_ROUTE;
		source = &p->tuple.source;
	}
	if (v6 ? decrement_ttl(ctx, hook, 6) : decrement_ttl(ctx, hook, 4))
		return EVENT_DROP_ERROR;
	if (!v6 && load_bytes(ctx, hook, ETH_HLEN + offsetof(struct iphdr, id), &id, sizeof(id)))
		return EVENT_DROP_ERROR;
	if (checksum && hook == HOOK_TC && ((struct __sk_buff *)ctx)->gso_size) {
		if (server->tunnel == TUNNEL_GRE || outer6)
			return EVENT_DROP_BUNDLE;
		checksum = false; /* the kernel cuts the bundle and leaves the checksum out, which UDP may */
	}
	if (checksum && !inner_sum(ctx, hook, memory))
		return EVENT_DROP_ERROR;
	if (server->tunnel == TUNNEL_GUE) {
		protocol = IPPROTO_UDP;
		flags = BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	} else if (server->tunnel == TUNNEL_GRE) {
		protocol = IPPROTO_GRE;
		flags = BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	}
	if (push_outer(ctx, hook, p, front, outer6, flags, memory->hop.result == HOP_OK))
		return EVENT_DROP_ERROR;
	void *ip = frame(ctx, hook) + ETH_HLEN, *end = frame_end(ctx, hook), *tunnel = ip + outer;
	if (tunnel + sizeof(struct gue_header) > end) /* with IPIP that is the inner header, which is longer */
		return EVENT_DROP_ERROR;
	if (outer6)
		write_outer6(ip, p, front, protocol, source, &server->address);
	else
		write_outer4(ip, p, front, id, protocol, source->word[3], server->address.word[3]);
	if (server->tunnel == TUNNEL_GUE) {
		struct gue_header *gue = tunnel;
		write_gue(gue, p, server, inner_protocol);
		if (checksum) {
			gue->udp.check = ~fold64(
				memory->sum.sum + words_sum(gue, sizeof(*gue)) +
				pseudo_sum(source, &server->address, p->length + sizeof(*gue), IPPROTO_UDP, outer6));
			if (!gue->udp.check)
				gue->udp.check = 0xffff;
		}
	} else if (server->tunnel == TUNNEL_GRE) {
		struct gre_header *gre = tunnel;
		gre->flags = checksum ? bpf_htons(GRE_CHECKSUM) : 0;
		gre->protocol = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
		if (checksum) {
			gre->checksum = gre->reserved = 0;
			gre->checksum = ~fold64(memory->sum.sum + words_sum(gre, sizeof(*gre)));
		}
	}
	return 0;
}

INLINE int encapsulate(void *ctx, const int hook, struct scratch *memory)
{
	struct server *server = get_server(memory->decision.server, memory->decision.generation);
	if (!server)
		return EVENT_DROP_SERVER_GONE;
	if (addr_is_v4(&server->address))
		return encapsulate_in(ctx, hook, memory, server, false);
	return encapsulate_in(ctx, hook, memory, server, true);
}

RARE(encapsulate)

#endif
