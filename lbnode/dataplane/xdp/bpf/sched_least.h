/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Schedulers by load: ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c, ip_vs_nq.c. Of equally loaded servers the newest one wins: the
 * first of IPVS's list.
 *
 * A service's servers stand in groups of 16 (lb.h: struct group). A choice compares the best of each group; only in groups
 * where a connection came or went since the last choice it looks at every member. Which is the same server as a scan of
 * all would find, at the cost of about one server in sixteen. Whoever changes a gauge makes the group's version grow, so
 * that a best member found meanwhile by another CPU does not count.
 */
#ifndef LBNODE_SCHED_LEAST_H
#define LBNODE_SCHED_LEAST_H

#include "sched_walk.h"

/* ip_vs_dest_conn_overhead: active connections count as 256 inactive ones; sed and nq: the active ones and the new one. */
INLINE __u64 overhead_of(__u32 scheduler, const struct gauge *gauge)
{
	__u64 active = gauge->active > 0 ? gauge->active : 0, inactive = gauge->inactive > 0 ? gauge->inactive : 0;
	if (scheduler == SCHED_SED)
		return active + 1;
	if (scheduler == SCHED_NQ)
		return active ? active + 1 : 0; /* never queue: an idle server comes before every other one */
	return (active << 8) + inactive;
}

/* Load of a server that may get a new connection; false if it may not. */
INLINE bool load_of(__u32 scheduler, __u32 index, struct load *load)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (!may_get(server, gauge))
		return false;
	load->overhead = overhead_of(scheduler, gauge);
	load->weight = scheduler == SCHED_LC ? 1 : server->weight;
	load->rank = server->rank;
	load->index = index;
	return true;
}

/* Overhead per weight, without a division. */
INLINE bool less_loaded(const struct load *a, const struct load *b)
{
	__u64 one = a->overhead * b->weight, other = b->overhead * a->weight;
	return one < other || (one == other && a->rank > b->rank);
}

/* Of lblc and lblcr: the server has connections to spare. */
INLINE bool has_spare(__u32 index)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	return server && gauge && (__s64)gauge->active * 2 < (__s64)server->weight;
}

/* Look at every member; w->looked becomes the low byte of `best`. */
GLOBAL int group_scan(struct walk *w, __u32 index)
{
	struct group *group = bpf_map_lookup_elem(&groups, &index);
	if (!w)
		return 0;
	w->looked = GROUP_NONE;
	if (!group)
		return 0;
	for (__u32 i = 0; i < GROUP_MEMBERS; i++) {
		__u32 member = group->member[i];
		struct load load;
		if (member == SLOT_EMPTY)
			continue;
		if (w->scheduler >= SCHED_LBLC && has_spare(member))
			w->looked |= GROUP_SPARE;
		if (!load_of(w->scheduler, member, &load))
			continue;
		if (w->looked & GROUP_NONE || less_loaded(&load, &w->best)) {
			w->best = load; /* in memory of a map: what the verifier knew of it would multiply its work */
			w->looked = (w->looked & GROUP_SPARE) | i;
		}
	}
	return 0;
}

static long group_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 index = w->group;
	struct group *group = bpf_map_lookup_elem(&groups, &index);
	if (!group)
		return 1;
	__u64 stamp = (__u64)w->epoch << 24 | (*(volatile __u32 *)&group->version & 0xffffff);
	__u64 best = *(volatile __u64 *)&group->best;
	if (best >> 8 != stamp) {
		group_scan(w, index);
		best = stamp << 8 | (w->looked & 0xff);
		*(volatile __u64 *)&group->best = best;
	}
	w->spare |= best & GROUP_SPARE;
	if (!(best & GROUP_NONE)) {
		__u32 member = group->member[best & (GROUP_MEMBERS - 1)];
		struct load load;
		if (load_of(w->scheduler, member, &load) &&
		    (w->least.index == NO_SERVER || less_loaded(&load, &w->least)))
			w->least = load;
	}
	w->group = group->next;
	return !w->group;
}
LOOPED(group_step, struct walk *)

/* The least loaded server of the service, or NO_SERVER; w->spare: somebody has connections to spare. */
INLINE __u32 schedule_least(const struct service *s, struct walk *w)
{
	w->scheduler = s->scheduler;
	w->epoch = s->epoch;
	w->group = s->group;
	w->spare = 0;
	w->least.index = NO_SERVER;
	if (w->group)
		LOOP(map_size(&groups), group_step, &w); /* some may have lost all their members */
	return w->least.index;
}

#endif
