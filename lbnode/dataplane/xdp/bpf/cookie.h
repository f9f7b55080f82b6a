/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SYN cookies (RFC 4987 3.6): the initial sequence number of a SYN-ACK, which an ACK brings back. From high to low: 24 bits of a
 * keyed hash over the connection's tuple, the client's initial sequence number, the time and the rest of the cookie; 2 bits
 * of MSS; 1: SACK permitted; 4: the client's window scale; 1: of the time. So nothing that the client offered in its SYN needs
 * timestamps to travel in, and none are offered: they would have to be translated as long as the connection lives.
 *
 * The kernel's own (bpf_tcp_raw_gen_syncookie_ipv4) leave no room for options, and their secret is not ours to share.
 */
#ifndef LBNODE_COOKIE_H
#define LBNODE_COOKIE_H

#include "segment.h"
#include "siphash.h"

#define COOKIE_SLOT_BITS 16 /* time goes on every 65.536 s; a cookie of the slot before is valid, too */
#define COOKIE_LIFE_MS (2U << COOKIE_SLOT_BITS)
#define COOKIE_HASH 0xffffff00

/* Offered to clients; windows beyond 64 MiB are cut, small ones rounded down to KiB. */
#define COOKIE_SCALE 10

/* Index in the cookie -> MSS: the largest that is not above the client's. IPv4's and IPv6's defaults come first. */
INLINE __u16 cookie_mss(int family, __u32 index)
{
	if (family == 6)
		return index == 0 ? 1220 : index == 1 ? 1300 : index == 2 ? 1380 : 1440;
	return index == 0 ? 536 : index == 1 ? 1300 : index == 2 ? 1400 : 1460;
}

/* SipHash-2-4 of the tuple (IPv4: without the 64 bits of either address that are always 0) and one more word. The low 32 bits. */
GLOBAL int cookie_hash(const struct tuple *t, __u64 more)
{
	struct config *config = get_config();
	const __u64 *x = (const void *)t;
	if (!t || !config)
		return 0;
	__u64 k0 = config->cookie_key[0], k1 = config->cookie_key[1], length = 32;
	struct sip v = sip_start(k0, k1);
	if (x[0] | x[2]) {
		sip_word(&v, x[0], 2);
		sip_word(&v, x[2], 2);
		length = 48;
	}
	sip_word(&v, x[1], 2);
	sip_word(&v, x[3], 2);
	sip_word(&v, x[4], 2);
	sip_word(&v, more, 2);
	sip_word(&v, length << 56, 2);
	return sip_end(&v, 4);
}

INLINE __u32 cookie_of(const struct tuple *t, __u32 isn, __u32 slot, __u32 info)
{
	info = (info & 0xfe) | (slot & 1);
	return (cookie_hash(t, (__u64)isn << 32 | (slot & 0xffff) << 8 | info) & COOKIE_HASH) | info;
}

/* For a client's SYN with these options. */
INLINE __u32 cookie_make(const struct tuple *t, __u32 isn, const struct tcp_options *o, int family, __u32 now)
{
	__u32 index = 3;
#pragma unroll
	for (int i = 0; i < 3; i++)
		if (index && o->mss < cookie_mss(family, index))
			index--;
	return cookie_of(t, isn, now >> COOKIE_SLOT_BITS, index << 6 | (__u32)o->sack_permitted << 5 | o->scale << 1);
}

/* Whether it is ours, to this client, and not too old. `t`: client -> VIP. */
INLINE bool cookie_valid(const struct tuple *t, __u32 isn, __u32 cookie, __u32 now)
{
	__u32 slot = now >> COOKIE_SLOT_BITS;
	slot -= (slot ^ cookie) & 1;
	return cookie_of(t, isn, slot, cookie) == cookie;
}

INLINE __u8 cookie_scale(__u32 cookie)
{
	return cookie >> 1 & 15;
}

INLINE bool cookie_sack(__u32 cookie)
{
	return cookie >> 5 & 1;
}

#endif
