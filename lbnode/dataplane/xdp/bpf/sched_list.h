/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Schedulers that walk the list of servers: ip_vs_rr.c, ip_vs_wrr.c, ip_vs_fo.c, ip_vs_ovf.c. Several CPUs share a cursor
 * by compare-and-swap; after a lost race the choice stands and the sequence may repeat one server.
 */
#ifndef LBNODE_SCHED_LIST_H
#define LBNODE_SCHED_LIST_H

#include "sched_walk.h"

#define CURSOR_TRIES 3

/* rr: the next available one after the last choice; the last choice itself comes last. */
static long rr_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 key = w->list + w->at;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (available(*index)) {
		w->chosen = *index;
		return 1;
	}
	if (++w->at >= w->len)
		w->at = 0;
	return 0;
}
LOOPED(rr_step, struct walk *)

/*
 * wrr: passes over the list with a current weight that falls by the gcd; a server is due if its weight reaches it. A
 * whole pass that found nobody may let the current weight fall at once to what somebody reaches: the same choice as
 * falling step by step.
 */
static long wrr_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	if (!w->steps) {
		__u32 next = w->whole ? (w->below ? w->below - w->gcd + 1 : 0) : (w->cw > w->gcd ? w->cw - w->gcd : 0);
		if (!next) {
			if (w->wraps++)
				return 1;
			next = w->max;
		}
		w->cw = next;
		w->below = 0;
		w->whole = 1;
		w->at = 0;
		w->steps = w->len;
	}
	__u32 key = w->list + w->at;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	struct server *server = available(*index);
	if (server) {
		if (server->weight >= w->cw) {
			w->chosen = *index;
			return 1;
		}
		if (server->weight > w->below)
			w->below = server->weight;
	}
	w->at++;
	w->steps--;
	return 0;
}
LOOPED(wrr_step, struct walk *)

/* One try; *w says whether another CPU moved the cursor meanwhile. */
GLOBAL int choose_by_cursor(struct service *s, struct walk *w)
{
	if (!s || !w)
		return NO_SERVER;
	__u32 index = s->index, len = s->list_len & 0xffff;
	__u64 *cursor = bpf_map_lookup_elem(&cursors, &index);
	walk_list(s, w);
	w->cw = w->below = w->wraps = w->lost = 0;
	if (!cursor || !len)
		return NO_SERVER;
	__u64 old = *(volatile __u64 *)cursor;
	__u32 at = old & 0xffff;
	bool stale = old >> 48 != (s->epoch & 0xffff);
	if (s->scheduler == SCHED_RR) {
		if (stale)
			at = s->start;
		w->at = at + 1 < len ? at + 1 : 0;
		LOOP(len, rr_step, &w);
	} else {
		w->cw = old >> 16;
		w->max = s->max_weight;
		w->gcd = s->weight_gcd ? s->weight_gcd : 1;
		if (!w->max)
			return NO_SERVER;
		if (stale) {
			at = len; /* as IPVS: from the head again */
			w->cw = s->start;
		}
		if (!w->cw || w->cw > w->max)
			w->cw = w->max;
		w->whole = at >= len;
		w->at = w->whole ? 0 : at + 1;
		w->steps = len - w->at;
		LOOP(5 * len + 5, wrr_step, &w);
	}
	if (w->chosen == NO_SERVER)
		return NO_SERVER;
	__u64 new = (__u64)s->epoch << 48 | (__u64)w->cw << 16 | (w->at & 0xffff);
	w->lost = __sync_val_compare_and_swap(cursor, old, new) != old;
	return w->chosen;
}

INLINE __u32 schedule_cursor(struct service *s, struct walk *w)
{
	__u32 chosen = NO_SERVER;
#pragma unroll
	for (int try = 0; try < CURSOR_TRIES; try++) {
		chosen = choose_by_cursor(s, w);
		if (!w->lost)
			break;
	}
	return chosen;
}

/* fo, ovf: the list begins with the largest weight. ovf passes over servers with more active connections than weight. */
static long first_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 key = w->list + w->at++;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	struct server *server = available(*index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, index);
	if (!server || !gauge || (w->scheduler == SCHED_OVF && gauge->active > (__s64)server->weight))
		return 0;
	w->chosen = *index;
	return 1;
}
LOOPED(first_step, struct walk *)

INLINE __u32 schedule_first(const struct service *s, struct walk *w)
{
	walk_list(s, w);
	w->scheduler = s->scheduler;
	LOOP(w->len, first_step, &w);
	return w->chosen;
}

#endif
