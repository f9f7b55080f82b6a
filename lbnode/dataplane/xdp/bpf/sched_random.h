/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * twos: the power of two choices (Mitzenmacher; ip_vs_twos.c). Of two servers drawn by weight the less loaded one. The
 * draws take Walker's alias method (slots.alias_table): two random numbers, however many servers there are.
 */
#ifndef LBNODE_SCHED_RANDOM_H
#define LBNODE_SCHED_RANDOM_H

#include "sched_least.h"

#define DRAW_SLOTS ((__u32)(sizeof(struct draw) / sizeof(__u32)))
#define DRAW_TRIES 16 /* a server whose threshold is reached is drawn again */

/* One server by weight; NO_SERVER if as many draws as there are tries met full ones only. */
GLOBAL int draw(const struct service *s)
{
	if (!s || s->table_len < DRAW_SLOTS)
		return NO_SERVER;
	for (__u32 try = 0; try < DRAW_TRIES; try++) {
		__u64 random = bpf_get_prandom_u32();
		__u32 at = s->table + (__u32)(random * (s->table_len / DRAW_SLOTS) >> 32) * DRAW_SLOTS;
		__u32 threshold_at = at + offsetof(struct draw, threshold) / sizeof(__u32);
		__u32 alias_at = at + offsetof(struct draw, alias) / sizeof(__u32);
		__u32 *threshold = bpf_map_lookup_elem(&slots, &threshold_at);
		__u32 *index = bpf_map_lookup_elem(&slots, &at);
		if (threshold && bpf_get_prandom_u32() > *threshold)
			index = bpf_map_lookup_elem(&slots, &alias_at);
		if (index && available(*index))
			return *index;
	}
	return NO_SERVER;
}

INLINE __u32 schedule_twos(struct service *s, struct walk *w)
{
	struct load one = {}, other = {};
	__u32 first = draw(s), second = draw(s);
	if (first == NO_SERVER && second == NO_SERVER) {
		walk_list(s, w); /* nearly all are full: whoever is not */
		w->at = bpf_get_prandom_u32() % (w->len ? w->len : 1);
		LOOP(w->len, rr_step, &w);
		return w->chosen;
	}
	if (!load_of(SCHED_TWOS, first, &one))
		return second;
	if (!load_of(SCHED_TWOS, second, &other))
		return first;
	other.rank = one.rank; /* a tie is the first one's */
	return less_loaded(&other, &one) ? second : first;
}

#endif
