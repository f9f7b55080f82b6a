/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What stands in for helpers that Linux 5.15 lacks: bpf_loop (5.17), bpf_xdp_load_bytes, bpf_xdp_store_bytes and
 * bpf_xdp_get_buff_len (5.18). libbpf writes into the program whether the kernel's types name a helper; the verifier then
 * removes the other way.
 */
#ifndef LBNODE_OLDER_H
#define LBNODE_OLDER_H

#include <bpf/bpf_core_read.h>

#include "maps.h"

#define HAS(helper) bpf_core_enum_value_exists(enum bpf_func_id, helper)

struct turns {
	void *state;
	__u32 count;
};

/* After a step that LOOP() calls. It returns 0, or 1: no more. */
#define LOOPED(step, state_type)                                                                                       \
	static long step##_turn(void *array, const __u32 *turn, void *element, struct turns *turns)                    \
	{                                                                                                              \
		state_type *state = turns->state;                                                                      \
		return *turn >= turns->count || step(*turn, state);                                                    \
	}

/* step(0, state), step(1, state), ...; without bpf_loop along the largest array that there is. */
#define LOOP(rounds, step, looped_state)                                                                               \
	do {                                                                                                           \
		if (HAS(BPF_FUNC_loop)) {                                                                              \
			bpf_loop(rounds, step, looped_state, 0);                                                       \
		} else {                                                                                               \
			struct turns turns = {.state = looped_state, .count = rounds};                                 \
			bpf_for_each_map_elem(&slots, step##_turn, &turns, 0);                                         \
		}                                                                                                      \
	} while (0)

/* A frame is one buffer there, and its whole is to be seen; no driver has longer ones. */
#define FRAME_MAX 0x3fff

/*
 * Between a frame at XDP and memory, at least one byte. 0, or -1: the frame does not reach so far. Byte by byte: the verifier
 * there follows each round of a loop.
 */
static __always_inline long xdp_copy(struct xdp_md *ctx, __u32 at, __u8 *memory, __u32 length, const bool store)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 offset = at;
	__u32 i = 0;
	if (at > FRAME_MAX)
		return -1;
	asm volatile("%0 &= %1" : "+r"(offset) : "i"(FRAME_MAX)); /* the verifier may have followed a copy of `at` */
	data += offset;
	do {
		if (data + i + 1 > end)
			return -1;
		if (store)
			data[i] = memory[i];
		else
			memory[i] = data[i];
	} while (++i < length);
	return 0;
}

#endif
