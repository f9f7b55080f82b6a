/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SCTP's checksum is a CRC32c over the whole packet (RFC 9260 appendix A), without the addresses. A port that changes changes
 * it by the CRC of the difference, which is two bytes and zeros up to the packet's end: for the zeros, polynomials are
 * multiplied instead of bytes read.
 */
#ifndef LBNODE_SCTP_H
#define LBNODE_SCTP_H

#include "decide.h"

#define CRC32C 0x82f63b78 /* the polynomial, lowest power in the highest bit, as everything here */

/* x^(8 * 2^k) modulo the polynomial: what 2^k zero bytes multiply a CRC by. */
static const __u32 crc_zeros[16] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/*
 * `value` if the bit is set, else 0: by multiplication. A branch, or a mask of all ones, would multiply the verifier's work:
 * it looks at both outcomes of each.
 */
INLINE __u32 if_set(__u32 bit, __u32 value)
{
	asm volatile("" : "+r"(bit));
	return bit * value;
}

/* x times the polynomial. */
INLINE __u32 crc_shift(__u32 crc)
{
	return (crc >> 1) ^ if_set(crc & 1, CRC32C);
}

/* Product of two polynomials modulo CRC32c. */
INLINE __u32 crc_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;
	for (int i = 0; i < 32; i++) {
		product ^= if_set(a >> 31, b);
		b = crc_shift(b);
		a <<= 1;
	}
	return product;
}

/* CRC of a difference of two bytes (as they stand in memory) that `zeros` bytes follow. */
GLOBAL int crc_of_difference(__u32 difference, __u32 zeros)
{
	__u32 crc = difference & 0xffff;
	for (int i = 0; i < 16; i++)
		crc = crc_shift(crc);
	for (int k = 0; k < 16; k++) {
		__u32 change = crc_multiply(crc_zeros[k], crc) ^ crc;
		crc ^= if_set(zeros >> k & 1, change);
	}
	return crc;
}

/* The CRC of a first fragment covers a packet whose length nobody knows yet: it cannot be mended. */
INLINE int translate_sctp_port(void *ctx, const int hook, const struct packet *p, const struct rewrite *to)
{
	__be16 old = to->source ? p->tuple.source_port : p->tuple.target_port;
	if (old == to->port)
		return 0;
	if (p->kind != KIND_L4)
		return -1;
	__u32 behind = p->length - p->header - (to->source ? 2 : 4);
	__le32 change = crc_of_difference(old ^ to->port, behind);
	struct sctp_header *sctp = frame(ctx, hook) + ETH_HLEN + header_length(p, p->family);
	if ((void *)sctp + SCTP_HEADER > frame_end(ctx, hook))
		return -1;
	if (to->source)
		sctp->source = to->port;
	else
		sctp->dest = to->port;
	/* A socket buffer that never was on a wire leaves it to a device, or to who gets it: then it is 0. */
	if (hook != HOOK_TC || sctp->checksum)
		sctp->checksum ^= change;
	return 0;
}

#endif
