/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Locality-based schedulers: ip_vs_lblc.c and ip_vs_lblcr.c. A target address keeps to the server (lblc) or the set of
 * servers (lblcr) that it was sent to, unless that is overloaded while another server has connections to spare. Several
 * CPUs may change one target's entry at once; the last one stands.
 */
#ifndef LBNODE_SCHED_LOCAL_H
#define LBNODE_SCHED_LOCAL_H

#include "conn.h"
#include "sched_least.h"

#define AFFINITY_MS (24 * 3600 * 1000) /* net.ipv4.vs.lblc_expiration, lblcr_expiration */

/* What is written to `affinity`: Linux 6.1 takes it from the memory of a map or the stack alone. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct affinity);
} affinity_written SEC(".maps");

/* The server that the target was sent to (lblc: also when its threshold is reached) becomes w->least. */
static long affinity_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	if (i >= AFFINITY_SET || i >= w->affinity.count)
		return 1;
	__u32 index = w->affinity.server[i].index;
	struct server *server = get_live_server(index, w->affinity.server[i].generation);
	if (!server || !server->weight)
		return 0;
	if (w->scheduler == SCHED_LBLC) {
		w->least.index = index;
		return 1;
	}
	if (!load_of(w->scheduler, index, &w->load))
		return 0;
	w->load.rank = AFFINITY_SET - i; /* the set's own order, newest first */
	if (w->least.index == NO_SERVER || less_loaded(&w->load, &w->least))
		w->least = w->load;
	return 0;
}
LOOPED(affinity_step, struct walk *)

/* ip_vs_dest_set_max: the most loaded one becomes w->best, its position w->looked. */
static long affinity_most_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	if (i >= AFFINITY_SET || i >= w->affinity.count)
		return 1;
	__u32 index = w->affinity.server[i].index;
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (!server || !gauge || !server->weight)
		return 0;
	w->load.overhead = overhead_of(w->scheduler, gauge);
	w->load.weight = server->weight;
	w->load.rank = AFFINITY_SET - i;
	if (w->looked == AFFINITY_SET || less_loaded(&w->best, &w->load)) {
		w->best = w->load;
		w->looked = i;
	}
	return 0;
}
LOOPED(affinity_most_step, struct walk *)

/* Take the most loaded server out of the target's set. */
INLINE void affinity_shrink(struct walk *w)
{
	w->looked = AFFINITY_SET;
	w->best.index = NO_SERVER;
	LOOP(AFFINITY_SET, affinity_most_step, &w);
	if (w->looked >= AFFINITY_SET)
		return;
#pragma unroll /* as in sync.h: take_all_step */
	for (__u32 i = 0; i < AFFINITY_SET - 1; i++)
		if (i >= w->looked)
			w->affinity.server[i] = w->affinity.server[i + 1];
	w->affinity.count--;
}

static long affinity_find_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	if (i >= AFFINITY_SET || i >= w->affinity.count)
		return 1;
	if (w->affinity.server[i].index != w->chosen || !get_live_server(w->chosen, w->affinity.server[i].generation))
		return 0;
	w->looked = i;
	return 1;
}
LOOPED(affinity_find_step, struct walk *)

/* lblc: w->chosen replaces the server before. lblcr: it comes first in the set, unless it is in it. */
INLINE void affinity_insert(struct walk *w, __u32 now)
{
	__u32 index = w->chosen;
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	w->looked = AFFINITY_SET;
	LOOP(AFFINITY_SET, affinity_find_step, &w);
	if (!server || w->looked < AFFINITY_SET)
		return;
	if (w->affinity.count >= AFFINITY_SET)
		affinity_shrink(w);
	if (w->scheduler == SCHED_LBLC)
		w->affinity.count = 0;
	else
		for (__u32 i = AFFINITY_SET - 1; i > 0; i--)
			w->affinity.server[i] = w->affinity.server[i - 1];
	w->affinity.server[0].index = index;
	w->affinity.server[0].generation = server->generation;
	w->affinity.count++;
	w->affinity.changed_ms = now;
}

INLINE bool more_than_weight(__u32 index)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	return server && gauge && gauge->active > (__s64)server->weight;
}

/* ip_vs_lblc_schedule, ip_vs_lblcr_schedule */
GLOBAL int schedule_local(struct service *s, const struct tuple *t, struct walk *w)
{
	struct clock *clock = get_clock();
	if (!s || !t || !w || !clock)
		return NO_SERVER;
	struct affinity_key key = {.target = t->target, .service = s->index};
	struct affinity *known = bpf_map_lookup_elem(&affinity, &key);
	__u32 now = clock->now_ms, before = NO_SERVER;
	w->affinity.count = 0;
	w->scheduler = s->scheduler;
	if (known && now - known->used_ms < AFFINITY_MS) {
		known->used_ms = now;
		w->affinity = *known;
		w->least.index = NO_SERVER;
		LOOP(AFFINITY_SET, affinity_step, &w);
		before = w->least.index;
		if (w->affinity.count > 1 && now - known->changed_ms > AFFINITY_MS) {
			affinity_shrink(w);
			w->affinity.changed_ms = now;
			*known = w->affinity;
		}
		if (before != NO_SERVER && !more_than_weight(before))
			return before;
	}
	w->chosen = schedule_least(s, w);
	if (before != NO_SERVER && !w->spare)
		return before;
	if (w->chosen == NO_SERVER)
		return NO_SERVER;
	w->affinity.used_ms = now;
	affinity_insert(w, now);
	__u32 zero = 0;
	struct affinity *entry = bpf_map_lookup_elem(&affinity_written, &zero);
	if (entry) {
		*entry = w->affinity;
		bpf_map_update_elem(&affinity, &key, entry, BPF_ANY);
	}
	return w->chosen;
}

#endif
