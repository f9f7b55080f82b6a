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
 *
 * A server may believe the option if it comes from a local address: no segment of a client gets there with one of its own,
 * at any time, whether the server is told or not. "Until the server has answered" would not do: one that has not taken the
 * connection yet answers a wrong ACK, too.
 */
#ifndef LBNODE_TOA_H
#define LBNODE_TOA_H

#include "icmp_send.h"
#include "reshape.h"

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

/* --- what clients say ---------------------------------------------------------------------------------------------- */

/*
 * What nearly all segments with options have: timestamps, SACK's blocks or both, each behind two NOPs (RFC 7323 appendix A,
 * RFC 2018 section 3), or the options of Linux's SYN. There is no TOA among them, and no wrong length.
 */
INLINE bool usual_options(void *ctx, const int hook, const struct packet *p, const int family)
{
	const __be32 *word = frame(ctx, hook) + ETH_HLEN + header_length(p, family) + TCP_HEADER;
	const void *end = frame_end(ctx, hook);
	__u32 length = p->l4_header - TCP_HEADER;
	if ((void *)(word + 1) > end)
		return false;
	if (word[0] == bpf_htonl(0x0101080a)) {
		if (length <= 12)
			return length == 12;
		word += 3;
		length -= 12;
		if ((void *)(word + 1) > end)
			return false;
	}
	if (word[0] == bpf_htonl(0x01010500 + length - 2))
		return true;
	/* MSS, SACK permitted, timestamps, NOP, window scale */
	return length == 20 && (void *)(word + 5) <= end &&
	       (word[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0x02040000) && word[1] == bpf_htonl(0x0402080a) &&
	       (word[4] & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300);
}

/*
 * Byte i of the options. TOA becomes NOPs; so does what follows the list's end or stands from an option on that says a
 * wrong length: nobody reads that, but together with an option put behind it, it would mean something else.
 */
static long strip_step(__u32 i, struct tcp_options **step)
{
	struct tcp_options *o = *step;
	if (i >= o->length || i >= TCP_OPTIONS_MAX)
		return 1;
	if (!o->next) {
		__u32 kind = o->byte[i & 63], size = o->byte[(i + 1) & 63], left = o->length - i;
		if (kind == OPTION_NOP)
			return 0;
		bool broken = kind == OPTION_END || size < 2 || size > left;
		o->strip = broken || kind == TCPOPT_TOA;
		o->stripped |= o->strip;
		o->next = broken ? left : size;
	}
	if (o->strip)
		o->byte[i & 63] = OPTION_NOP;
	o->next--;
	return 0;
}
LOOPED(strip_step, struct tcp_options *)

/* In a segment of a client. 0, or not. */
INLINE int strip_toa(void *ctx, const int hook, struct scratch *memory)
{
	struct tcp_options *o = &memory->proxy.options, *step = o;
	__u32 at = ETH_HLEN + memory->packet.header + TCP_CHECK_AT;
	__u64 change = 0;
	__u16 check;
	if (load_options(ctx, hook, memory))
		return -1;
	o->next = 0;
	o->strip = o->stripped = 0;
	LOOP(TCP_OPTIONS_MAX, strip_step, &step);
	if (!o->stripped)
		return 0;
	if (store_options(ctx, hook, memory, &change))
		return -1;
	if (hook == HOOK_TC)
		return bpf_l4_csum_replace(ctx, at, 0, change, 0) ? -1 : 0;
	if (load_bytes(ctx, hook, at, &check, sizeof(check)))
		return -1;
	csum_add(&check, change);
	return store_bytes(ctx, hook, at, &check, sizeof(check)) ? -1 : 0;
}
RARE(strip_toa)

/* --- what servers are told ----------------------------------------------------------------------------------------- */

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
