/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP headers out of and into packets at both hooks: read, renumbered, or put in the place of a whole segment. */
#ifndef LBNODE_RESHAPE_H
#define LBNODE_RESHAPE_H

#include "cookie.h"
#include "sum.h"

INLINE long store_bytes(void *ctx, const int hook, __u32 at, void *from, const __u32 length)
{
	if (!is_xdp(hook))
		return bpf_skb_store_bytes(ctx, at, from, length, 0);
	return HAS(BPF_FUNC_xdp_store_bytes) ? bpf_xdp_store_bytes(ctx, at, from, length)
					     : xdp_copy(ctx, at, from, length, true);
}

/* From 4 to 40 bytes of options; the mask is what Linux 6.1 believes. */
INLINE __u32 options_length(const struct tcp_options *o)
{
	__u32 length = *(const volatile __u32 *)&o->length;
	asm volatile("%0 += -1; %0 &= 63; %0 += 1" : "+r"(length));
	return length;
}

/* The packet's options into memory->proxy, and a copy of them. 0, or not. */
INLINE int load_options(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	x->options.length = p->l4_header - TCP_HEADER;
	if (x->options.length && x->options.length <= TCP_OPTIONS_MAX &&
	    load_bytes(ctx, hook, ETH_HLEN + p->header + TCP_HEADER, x->options.byte, options_length(&x->options)))
		return -1;
	__builtin_memcpy(x->before, x->options.byte, sizeof(x->before));
	return 0;
}

/* Options that were changed go back into the packet. *change: for the checksum. 0, or not. */
INLINE int store_options(void *ctx, const int hook, struct scratch *memory, __u64 *change)
{
	struct syn_proxy *x = &memory->proxy;
	__u32 length = options_length(&x->options) & 0x3c; /* whole words */
	*change += (__u32)bpf_csum_diff((void *)x->before, length, (void *)x->options.byte, length, 0);
	return store_bytes(ctx, hook, ETH_HLEN + memory->packet.header + TCP_HEADER, x->options.byte,
			   options_length(&x->options));
}

/* Header and options of the packet into memory->proxy. 0, or not. */
INLINE int read_segment(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	__u32 at = ETH_HLEN + p->header;
	if (p->l4_header < TCP_HEADER || load_bytes(ctx, hook, at, &x->tcp, TCP_HEADER) ||
	    load_options(ctx, hook, memory))
		return -1;
	x->seq = bpf_ntohl(x->tcp.seq);
	x->ack = bpf_ntohl(x->tcp.ack);
	x->window = bpf_ntohs(x->tcp.window);
	x->data = 0;
	x->rewrite = REWRITE_NOTHING;
	read_options(&x->options);
	return 0;
}
RARE(read_segment)

/* Write back sequence and acknowledgement number, window and SACK's blocks. No pseudo header has them. 0, or -1. */
INLINE int renumber(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	__u32 at = ETH_HLEN + p->header;
	__u64 change = (__u64)(__u32)~bpf_htonl(x->seq) + x->tcp.seq + (__u32)~bpf_htonl(x->ack) + x->tcp.ack +
		       (__u16)~bpf_htons(x->window) + x->tcp.window;
	if (x->options.sack_at && store_options(ctx, hook, memory, &change))
		return -1;
	if (hook == HOOK_TC) {
		change = (change & 0xffffffff) + (change >> 32);
		change = (change & 0xffffffff) + (change >> 32);
		if (bpf_l4_csum_replace(ctx, at + TCP_CHECK_AT, 0, change, 0))
			return -1;
		return store_bytes(ctx, hook, at + 4, &x->tcp.seq, 12) ? -1 : 0;
	}
	csum_add(&x->tcp.check, change);
	return store_bytes(ctx, hook, at + 4, &x->tcp.seq, 14) ? -1 : 0;
}

/* XDP: so many bytes more, in front of the frame: behind it a veth has no room for any. Ethernet and IP headers move there. */
INLINE int grow_head(void *ctx, const int hook, struct scratch *memory, int more)
{
	__u8 *headers = memory->proxy.before;
	bool six = memory->packet.family == 6;
	if (load_bytes(ctx, hook, 0, headers, ETH_HLEN + IP_HEADER) ||
	    (six && load_bytes(ctx, hook, 0, headers, ETH_HLEN + IP6_HEADER)))
		return -1;
	if (bpf_xdp_adjust_head(ctx, -more))
		return -1;
	if (six)
		return store_bytes(ctx, hook, 0, headers, ETH_HLEN + IP6_HEADER) ? -1 : 0;
	return store_bytes(ctx, hook, 0, headers, ETH_HLEN + IP_HEADER) ? -1 : 0;
}

/*
 * Give the packet the size of a segment of the gateway's own. *partial: its checksum is left to the device. That cannot be
 * read, but such a buffer refuses to be cut before the end of its checksum field.
 */
INLINE int resize(void *ctx, const int hook, struct scratch *memory, __u32 l4_at, __u32 length, bool *partial)
{
	if (hook == HOOK_TC) {
		*partial = bpf_skb_change_tail(ctx, l4_at + TCP_CHECK_AT + 1, 0) != 0;
		return bpf_skb_change_tail(ctx, l4_at + length, 0) ? -1 : 0;
	}
	int change = l4_at + length - frame_len(ctx, hook);
	if (change > 0)
		return grow_head(ctx, hook, memory, change);
	return change && bpf_xdp_adjust_tail(ctx, change) ? -1 : 0;
}

INLINE int reshape_ip4(void *ctx, const int hook, const struct packet *p, bool back)
{
	struct iphdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	ip->tot_len = bpf_htons(p->length);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	if (back) {
		ip->tos = 0;
		ip->ttl = 64;
		ip->saddr = p->tuple.target.word[3];
		ip->daddr = p->tuple.source.word[3];
	}
	ip_set_checksum(ip);
	return 0;
}

INLINE int reshape_ip6(void *ctx, const int hook, const struct packet *p, bool back)
{
	struct ipv6hdr *ip = frame(ctx, hook) + ETH_HLEN;
	if ((void *)(ip + 1) > frame_end(ctx, hook))
		return -1;
	ip->payload_len = bpf_htons(p->length - IP6_HEADER);
	if (back) {
		ip->priority = 0;
		ip->flow_lbl[0] = ip->flow_lbl[1] = ip->flow_lbl[2] = 0;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, &p->tuple.target, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &p->tuple.source, sizeof(ip->daddr));
	}
	return 0;
}

/* Only these become segments of the gateway's own. */
INLINE bool is_plain(const struct packet *p)
{
	return p->kind == KIND_L4 && p->header == (p->family == 6 ? IP6_HEADER : IP_HEADER);
}

/*
 * Put the segment memory->proxy.tcp in the place of the packet's; `back`: from its target to its source. Checksums
 * are made anew: over the pseudo header alone where the device does the rest. 0, or -1.
 */
INLINE int reshape(void *ctx, const int hook, struct scratch *memory, bool back)
{
	struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	__u32 at = ETH_HLEN + p->header, length = SEGMENT_HEADER + (x->data ? 1 : 0);
	bool partial = false;
	if (!is_plain(p) || resize(ctx, hook, memory, at, length, &partial))
		return -1;
	x->data = 0; /* from here on the byte itself */
	x->tcp.check = 0;
	/* IPv4 addresses are mapped: what stands in front of both counts as 0 */
	__u64 sum = bpf_csum_diff(NULL, 0, (void *)&p->tuple, 2 * sizeof(struct addr), 0);
	sum += bpf_htons(length) + bpf_htons(IPPROTO_TCP);
	if (!partial)
		sum += (__u32)bpf_csum_diff(NULL, 0, (void *)&x->tcp, SEGMENT_HEADER, 0);
	x->tcp.check = fold64(sum);
	if (!partial)
		x->tcp.check = ~x->tcp.check;
	if (length > SEGMENT_HEADER ? store_bytes(ctx, hook, at, &x->tcp, SEGMENT_HEADER + 1)
				    : store_bytes(ctx, hook, at, &x->tcp, SEGMENT_HEADER))
		return -1;
	p->length = p->header + length;
	p->l4_header = SEGMENT_HEADER;
	return p->family == 6 ? reshape_ip6(ctx, hook, p, back) : reshape_ip4(ctx, hook, p, back);
}

/* What memory->proxy.rewrite says. 0, or not. */
INLINE int rewrite_segment(void *ctx, const int hook, struct scratch *memory)
{
	__u32 rewrite = memory->proxy.rewrite;
	if (rewrite == REWRITE_NUMBERS)
		return renumber(ctx, hook, memory);
	return reshape(ctx, hook, memory, rewrite == REWRITE_ANSWER);
}
RARE(rewrite_segment)

#endif
