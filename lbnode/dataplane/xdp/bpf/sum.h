/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Summing up bytes of a frame that lie anywhere, for checksums that have to be made anew. */
#ifndef LBNODE_SUM_H
#define LBNODE_SUM_H

#include "decide.h"

#define SUM_CHUNK 64
#define SUM_CHUNKS 160 /* 10240 bytes: more than a jumbo frame */

/* The callback's state but for the progress lies outside the stack (struct walk in sched.h says why). */
struct sum_step {
	void *ctx;
	struct sum *sum;
};

INLINE long sum_step(struct sum_step *step, const int hook)
{
	struct sum *s = step->sum;
	__u8 chunk[SUM_CHUNK] = {};
	__u32 size = s->left;
	if (size > SUM_CHUNK)
		size = SUM_CHUNK;
	if (!size)
		return 1;
	asm volatile("%0 += -1; %0 &= 63; %0 += 1" : "+r"(size)); /* Linux 6.1 does not conclude that it is not 0 */
	if (load_bytes(step->ctx, hook, s->at, chunk, size))
		return 1;
	s->sum += bpf_csum_diff(NULL, 0, (void *)chunk, sizeof(chunk), 0);
	s->at += size;
	s->left -= size;
	return 0;
}

static long sum_step_xdp(__u32 i, struct sum_step *step)
{
	return sum_step(step, HOOK_XDP);
}
LOOPED(sum_step_xdp, struct sum_step)

static long sum_step_tc(__u32 i, struct sum_step *step)
{
	return sum_step(step, HOOK_TC);
}
LOOPED(sum_step_tc, struct sum_step)

/* One's complement sum of `length` bytes from offset `at`, in s->sum. False: too long, or not there. */
INLINE bool sum_bytes(void *ctx, const int hook, struct sum *s, __u32 at, __u32 length)
{
	struct sum_step step = {.ctx = ctx, .sum = s};
	s->sum = 0;
	s->at = at;
	s->left = length;
	if (length && is_xdp(hook))
		LOOP(SUM_CHUNKS, sum_step_xdp, &step);
	else if (length)
		LOOP(SUM_CHUNKS, sum_step_tc, &step);
	return !s->left;
}

INLINE __u16 fold64(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return csum_fold(csum_fold(sum));
}

/* Of the pseudo header: addresses, length and protocol (RFC 793, RFC 8200 8.1). */
INLINE __u64 pseudo_sum(const struct addr *source, const struct addr *target, __u32 length, __u8 protocol, bool v6)
{
	__u64 sum = (__u64)source->word[3] + target->word[3] + bpf_htons(length) + bpf_htons(protocol);
	if (v6)
		sum += (__u64)source->word[0] + source->word[1] + source->word[2] + target->word[0] + target->word[1] +
		       target->word[2];
	return sum;
}

#endif
