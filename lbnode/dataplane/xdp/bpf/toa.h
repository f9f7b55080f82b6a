/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TOA: with full NAT a server sees connections come from the gateway; a TCP option tells it the client's address and port.
 * Kind 254 (RFC 4727: for experiments) as IPVS's and DPVS's full NAT send it and the kernel module "toa" reads it.
 *
 * Which segments: the client's until the server has sent one beside its SYN-ACK, which it does when it has taken the
 * connection. The module reads the last one of the opening; programs read SYNs without any module (TCP_SAVED_SYN). Of a few
 * segments the option takes 8 or 20 of the 40 bytes for options, so that neither MSS nor MTU has to shrink; a
 * segment without room goes on without, counted.
 *
 * At tcx only segments without data carry it: the option is put at their ends. With data it would move the TCP header, but a
 * socket buffer may leave its checksum to the device, and where that begins no program can change. Opening segments have
 * no data, and bundles (GSO) always have.
 */
#ifndef LBNODE_TOA_H
#define LBNODE_TOA_H

#include "icmp_send.h"
#include "segment.h"

#define TCPOPT_TOA 254
#define TCP_HEADER_MAX 60
#define TCP_OFFSET_AT 12 /* data offset and flags: one 16-bit word */
#define SAFE_MTU 576	 /* RFC 1122 3.3.3: if the next hop's is not known */

struct toa {
	__u8 kind;
	__u8 length;
	__be16 port;
	__u8 address[16];
};
#define TOA4 8
#define TOA6 20

/* Lengths in the IP header grow by `more`. */
INLINE void grow_ip(void *ip, const int family, const __u32 more)
{
	if (family == 6) {
		struct ipv6hdr *ip6 = ip;
		ip6->payload_len = bpf_htons(bpf_ntohs(ip6->payload_len) + more);
		return;
	}
	struct iphdr *ip4 = ip;
	__be16 length = bpf_htons(bpf_ntohs(ip4->tot_len) + more);
	csum_replace2(&ip4->check, ip4->tot_len, length);
	ip4->tot_len = length;
}

INLINE __u64 toa_sum(const struct toa *toa, const __u32 length)
{
	const __u16 *word = (const void *)toa;
	__u64 sum = 0;
#pragma unroll
	for (__u32 i = 0; i < length / 2; i++)
		sum += word[i];
	return sum;
}

/* Ethernet, IP and TCP headers move to the front; what stands behind TCP's fixed part stays where it is. */
INLINE int push_toa_xdp(struct xdp_md *ctx, const struct packet *p, const struct toa *toa, const int family,
			const __u32 length)
{
	const __u32 ip_header = family == 6 ? IP6_HEADER : IP_HEADER, front = ETH_HLEN + ip_header + TCP_HEADER;
	if (bpf_xdp_adjust_head(ctx, -(int)length)) {
		count(EVENT_TOA_LEFT_OUT);
		return 0;
	}
	void *data = frame(ctx, HOOK_XDP);
	if (data + front + length > frame_end(ctx, HOOK_XDP))
		return -1;
	__u16 *word = data;
#pragma unroll
	for (__u32 i = 0; i < front / 2; i++)
		word[i] = word[i + length / 2];
	__builtin_memcpy(data + front, toa, length);
	__u16 *tcp = data + ETH_HLEN + ip_header;
	__be16 old = tcp[TCP_OFFSET_AT / 2], new = old + bpf_htons(length / 4 << 12);
	tcp[TCP_OFFSET_AT / 2] = new;
	__u32 payload = p->length - p->header;
	csum_add(&tcp[TCP_CHECK_AT / 2],
		 toa_sum(toa, length) + (__u16)~old + new + (__u16)~bpf_htons(payload) + bpf_htons(payload + length));
	grow_ip(data + ETH_HLEN, family, length);
	return 0;
}

INLINE int push_toa_tc(struct __sk_buff *skb, const struct packet *p, const struct toa *toa, const int family,
		       const __u32 length)
{
	__u32 at = ETH_HLEN + p->header, payload = p->length - p->header;
	__be16 old;
	if (bpf_skb_change_tail(skb, ETH_HLEN + p->length + length, 0)) {
		count(EVENT_TOA_LEFT_OUT);
		return 0;
	}
	if (bpf_skb_load_bytes(skb, at + TCP_OFFSET_AT, &old, sizeof(old)))
		return -1;
	__be16 new = old + bpf_htons(length / 4 << 12);
	if (bpf_skb_store_bytes(skb, ETH_HLEN + p->length, toa, length, 0) ||
	    bpf_skb_store_bytes(skb, at + TCP_OFFSET_AT, &new, sizeof(new), 0) ||
	    bpf_l4_csum_replace(skb, at + TCP_CHECK_AT, bpf_htons(payload), bpf_htons(payload + length),
				BPF_F_PSEUDO_HDR | 2) ||
	    bpf_l4_csum_replace(skb, at + TCP_CHECK_AT, 0, fold64(toa_sum(toa, length) + (__u16)~old + new), 0))
		return -1;
	void *ip = frame(skb, HOOK_TC) + ETH_HLEN;
	if (ip + IP6_HEADER > frame_end(skb, HOOK_TC))
		return -1;
	grow_ip(ip, family, length);
	return 0;
}

/* The packet is translated already; `p` says how it came. 0, or -1: it is broken. */
INLINE int push_toa_in(void *ctx, const int hook, const struct packet *p, __u32 mtu, const int family)
{
	const __u32 length = family == 6 ? TOA6 : TOA4;
	struct toa toa = {.kind = TCPOPT_TOA, .length = length, .port = p->tuple.source_port};
	if (family == 6)
		__builtin_memcpy(toa.address, &p->tuple.source, 16);
	else
		__builtin_memcpy(toa.address, &p->tuple.source.word[3], 4);
	bool data = p->length > p->header + p->l4_header;
	bool odd = p->header != (family == 6 ? IP6_HEADER : IP_HEADER);
	if (p->l4_header + length > TCP_HEADER_MAX || p->length + length > (mtu ? mtu : SAFE_MTU) ||
	    (is_xdp(hook) ? odd : data)) {
		count(EVENT_TOA_LEFT_OUT);
		return 0;
	}
	return is_xdp(hook) ? push_toa_xdp(ctx, p, &toa, family, length) : push_toa_tc(ctx, p, &toa, family, length);
}

INLINE int tell_client(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	struct server *server = get_server(memory->decision.server, memory->decision.generation);
	__u32 mtu = server && server->flags & SERVER_HOP ? server->mtu : 0;
	return p->family == 6 ? push_toa_in(ctx, hook, p, mtu, 6) : push_toa_in(ctx, hook, p, mtu, 4);
}

RARE(tell_client)

#endif
