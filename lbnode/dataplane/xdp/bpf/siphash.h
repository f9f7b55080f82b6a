/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The parts of SipHash (Aumasson, Bernstein 2012); SipHash-c-d has c rounds a word and d at the end. */
#ifndef LBNODE_SIPHASH_H
#define LBNODE_SIPHASH_H

#include "maps.h"

struct sip {
	__u64 a, b, c, d;
};

INLINE struct sip sip_start(__u64 k0, __u64 k1)
{
	struct sip v = {k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL, k0 ^ 0x6c7967656e657261ULL,
			k1 ^ 0x7465646279746573ULL};
	return v;
}

INLINE __u64 rotate(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

INLINE void sip_round(struct sip *v)
{
	v->a += v->b;
	v->b = rotate(v->b, 13) ^ v->a;
	v->a = rotate(v->a, 32);
	v->c += v->d;
	v->d = rotate(v->d, 16) ^ v->c;
	v->a += v->d;
	v->d = rotate(v->d, 21) ^ v->a;
	v->c += v->b;
	v->b = rotate(v->b, 17) ^ v->c;
	v->c = rotate(v->c, 32);
}

/* The last one has the message's length in its highest byte. */
INLINE void sip_word(struct sip *v, __u64 word, const int rounds)
{
	v->d ^= word;
#pragma unroll
	for (int i = 0; i < rounds; i++)
		sip_round(v);
	v->a ^= word;
}

INLINE __u32 sip_end(struct sip *v, const int rounds)
{
	v->c ^= 0xff;
#pragma unroll
	for (int i = 0; i < rounds; i++)
		sip_round(v);
	return v->a ^ v->b ^ v->c ^ v->d;
}

#endif
