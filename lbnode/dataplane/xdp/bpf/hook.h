/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The two hooks under one name each. `hook` is a constant wherever these are used, so every program contains only its own
 * half. At tcx the checksum helpers are used: they know about checksums left to the device (CHECKSUM_PARTIAL) and GSO.
 */
#ifndef LBNODE_HOOK_H
#define LBNODE_HOOK_H

#include "older.h"
#include "packet.h"

#define HOOK_XDP 0
#define HOOK_TC 1
#define HOOK_XDP_FRAGS 2 /* frames may consist of several buffers */

INLINE bool is_xdp(const int hook)
{
	return hook != HOOK_TC;
}

#define AF_INET 2
#define AF_INET6 10
#define TC_NEXT (-1) /* TCX_NEXT, TC_ACT_UNSPEC: go on as if the program had not been there */
#define TC_DROP 2    /* TCX_DROP */
#define PACKET_HOST 0

/*
 * Work that few packets need is a function of its own per hook, verified apart from its callers and with a frame of its
 * own on the stack: `call_NAME`. It finds everything in the working memory.
 */
#define RARE(name)                                                                                                     \
	GLOBAL int name##_xdp(struct xdp_md *ctx, struct scratch *memory)                                              \
	{                                                                                                              \
		return memory ? name(ctx, HOOK_XDP_FRAGS, memory) : XDP_ABORTED;                                       \
	}                                                                                                              \
	GLOBAL int name##_tc(struct __sk_buff *ctx, struct scratch *memory)                                            \
	{                                                                                                              \
		return memory ? name(ctx, HOOK_TC, memory) : TC_DROP;                                                  \
	}                                                                                                              \
	INLINE int call_##name(void *ctx, const int hook, struct scratch *memory)                                      \
	{                                                                                                              \
		return is_xdp(hook) ? name##_xdp(ctx, memory) : name##_tc(ctx, memory);                                \
	}

/*
 * The verifier wants these fields read at a constant offset from the context itself; the compiler, left alone, likes to
 * keep the field's address in a register.
 */
#define CONTEXT_POINTER(type, field)                                                                                   \
	({                                                                                                             \
		void *value;                                                                                           \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"(offsetof(type, field)));           \
		value;                                                                                                 \
	})

INLINE void *frame(void *ctx, const int hook)
{
	return is_xdp(hook) ? CONTEXT_POINTER(struct xdp_md, data) : CONTEXT_POINTER(struct __sk_buff, data);
}

INLINE void *frame_end(void *ctx, const int hook)
{
	return is_xdp(hook) ? CONTEXT_POINTER(struct xdp_md, data_end) : CONTEXT_POINTER(struct __sk_buff, data_end);
}

INLINE __u32 frame_len(void *ctx, const int hook)
{
	if (hook == HOOK_TC)
		return ((struct __sk_buff *)ctx)->len;
	if (hook == HOOK_XDP_FRAGS && HAS(BPF_FUNC_xdp_get_buff_len))
		return bpf_xdp_get_buff_len(ctx);
	__u64 length = (__u64)frame_end(ctx, hook);
	asm volatile("%0 -= %1" : "+r"(length) : "r"(frame(ctx, hook))); /* the compiler would subtract 32-bit halves */
	return length;
}

/* Bytes from anywhere in the frame, also from buffers that cannot be looked into. 0, or a negative errno. */
INLINE long load_bytes(void *ctx, const int hook, __u32 at, void *to, const __u32 length)
{
	if (!is_xdp(hook))
		return bpf_skb_load_bytes(ctx, at, to, length);
	return HAS(BPF_FUNC_xdp_load_bytes) ? bpf_xdp_load_bytes(ctx, at, to, length)
					    : xdp_copy(ctx, at, to, length, false);
}

INLINE __u32 ingress(void *ctx, const int hook)
{
	if (is_xdp(hook))
		return ((struct xdp_md *)ctx)->ingress_ifindex;
	return ((struct __sk_buff *)ctx)->ifindex;
}

/*
 * In place of the size of a bundle's segments: they are a list of packets of any length without headers, SCTP's, behind a
 * head that holds these alone. Linux (6.1) crashes when such a bundle is cut after part of the list was pulled into the head.
 */
#define GSO_BY_FRAGS 0xffff

/*
 * Bytes of the largest IP packet on the wire: a bundle of segments is cut on its way out, not to the MTU but as it came. 0:
 * the kernel alone knows.
 */
INLINE __u32 wire_length(void *ctx, const int hook, const struct packet *p)
{
	if (hook == HOOK_TC) {
		__u32 segment = ((struct __sk_buff *)ctx)->gso_size;
		if (segment)
			return segment == GSO_BY_FRAGS ? 0 : p->header + p->l4_header + segment;
	}
	return p->length;
}

INLINE int pass(const int hook)
{
	return is_xdp(hook) ? XDP_PASS : TC_NEXT;
}

/* The packet's end; whoever decided so has counted it. */
INLINE int dropped(const int hook)
{
	return is_xdp(hook) ? XDP_DROP : TC_DROP;
}

INLINE int drop(const int hook, __u32 event)
{
	count(event);
	return dropped(hook);
}

INLINE int send(void *ctx, const int hook, __u32 ifindex)
{
	if (is_xdp(hook) && ifindex == ((struct xdp_md *)ctx)->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

/* Frames and our structures hold MAC addresses at even offsets. */
INLINE void copy_mac(void *to, const void *from)
{
	__u16 *x = to;
	const __u16 *y = from;
	x[0] = y[0];
	x[1] = y[1];
	x[2] = y[2];
}

/* Back to where it came from. */
INLINE int reflect(void *ctx, const int hook)
{
	struct ethhdr *eth = frame(ctx, hook);
	if ((void *)(eth + 1) > frame_end(ctx, hook))
		return drop(hook, EVENT_DROP_ERROR);
	__u16 mac[ETH_ALEN / 2];
	copy_mac(mac, eth->h_dest);
	copy_mac(eth->h_dest, eth->h_source);
	copy_mac(eth->h_source, mac);
	return send(ctx, hook, ingress(ctx, hook));
}

INLINE int change_ttl(void *ctx, const int hook, const int family, const int change)
{
	void *ip = frame(ctx, hook) + ETH_HLEN;
	if (ip + (family == 6 ? IP6_HEADER : IP_HEADER) > frame_end(ctx, hook))
		return -1;
	if (family == 6)
		((struct ipv6hdr *)ip)->hop_limit += change;
	else
		ip_change_ttl(ip, change);
	return 0;
}

INLINE int decrement_ttl(void *ctx, const int hook, const int family)
{
	return change_ttl(ctx, hook, family, -1);
}

/* --- next hop -------------------------------------------------------------------------------------------------- */

#define ROUTE_TOS 0x1c /* what IPv4 routes and rules may distinguish (IPTOS_RT_MASK) */

enum hop_result {
	HOP_OK,
	HOP_NO_NEIGHBOUR, /* `family`, `gateway`, `ifindex` are known */
	HOP_TOO_BIG,	  /* `mtu` is known */
	HOP_STACK,    /* a route that the network stack alone can use: one with encapsulation (ip-route(8): encap) */
	HOP_NO_ROUTE, /* none at all, one that forbids it, or forwarding is off where the packet came in */
};

struct hop {
	__u32 result;
	__u32 ifindex;
	__u32 mtu;
	__u32 family;
	__u32 gateway[4];
	__u8 target_mac[ETH_ALEN];
	__u8 source_mac[ETH_ALEN];
};

/*
 * Ask the kernel's routes and neighbours, in the target's family. `length` counts with what is going to be put in front;
 * `fib` is working memory.
 */
INLINE void find_hop(void *ctx, const int hook, struct bpf_fib_lookup *fib, struct hop *hop, const struct addr *source,
		     const struct addr *target, __u8 tos, __u32 length, int family)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = ingress(ctx, hook);
	if (family == 6) {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, source, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, target, sizeof(fib->ipv6_dst));
	} else {
		fib->family = AF_INET;
		fib->ipv4_src = source->word[3];
		fib->ipv4_dst = target->word[3];
		fib->tos = tos & ROUTE_TOS;
	}
	if (length <= 0xffff)
		fib->tot_len = length;
	long result = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	hop->ifindex = fib->ifindex;
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		hop->result = HOP_OK;
		copy_mac(hop->target_mac, fib->dmac);
		copy_mac(hop->source_mac, fib->smac);
		return;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		hop->result = HOP_NO_NEIGHBOUR;
		hop->family = fib->family;
		__builtin_memcpy(hop->gateway, fib->ipv6_dst, sizeof(hop->gateway));
		return;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		hop->result = HOP_TOO_BIG;
		hop->mtu = fib->mtu_result;
		return;
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		hop->result = HOP_STACK;
		return;
	default:
		hop->result = HOP_NO_ROUTE;
	}
}

/* What xdp_lb leaves in front of a frame for tc_behind_xdp: who the next hop is that has to be resolved. */
struct handover {
	__u32 magic;
	__u32 ifindex;
	__u32 family;
	__u32 gateway[4];
};
#define HANDOVER_MAGIC 0x6c626e64

INLINE int redirect_neighbour(__u32 ifindex, __u32 family, const __u32 *gateway)
{
	struct bpf_redir_neigh neighbour = {.nh_family = family};
	__builtin_memcpy(neighbour.ipv6_nh, gateway, sizeof(neighbour.ipv6_nh));
	return bpf_redirect_neigh(ifindex, &neighbour, sizeof(neighbour), 0);
}

#endif
