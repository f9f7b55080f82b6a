/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the service alone is told of packets that would have opened a connection: counters that no packet of an open one
   touches. */
#ifndef LBNODE_ADMISSION_H
#define LBNODE_ADMISSION_H

#include "sched_walk.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct admission);
} admissions SEC(".maps");

INLINE struct admission *get_admission(__u32 service)
{
	return bpf_map_lookup_elem(&admissions, &service);
}

/* Count the event, for the service (its index), too. */
GLOBAL int count_for(__u32 service, __u32 event)
{
	struct admission *a = get_admission(service);
	count(event);
	if (!a)
		return 0;
	switch (event) {
	case EVENT_DROP_DENIED:
		a->denied++;
		break;
	case EVENT_DROP_RATE:
		a->rate++;
		break;
	case EVENT_DROP_NO_SERVER:
		a->no_server++;
		break;
	case EVENT_DROP_OVERLOADED:
		a->overloaded++;
		break;
	case EVENT_DROP_TABLE_FULL:
		a->table_full++;
		break;
	case EVENT_DROP_NO_LOCAL_PORT:
		a->no_local_port++;
		break;
	case EVENT_COOKIE_SENT:
		a->cookies_sent++;
		break;
	case EVENT_COOKIE_ACCEPTED:
		a->cookies_accepted++;
		break;
	case EVENT_COOKIE_REFUSED:
		a->cookies_refused++;
		break;
	}
	return 0;
}

INLINE void count_clamped(__u32 service)
{
	struct admission *a = get_admission(service);
	if (a)
		a->clamped++;
}

static long overloaded_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 key = w->list + w->at++;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	struct server *server = bpf_map_lookup_elem(&servers, index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, index);
	if (!server || !gauge || !server->weight || !overloaded(server, gauge))
		return 0;
	w->chosen = *index;
	return 1;
}
LOOPED(overloaded_step, struct walk *)

/* Why the scheduler found nobody: a server that has weight is overloaded, or there is none. */
GLOBAL int why_no_server(const struct service *s, struct walk *w)
{
	if (!s || !w)
		return EVENT_DROP_NO_SERVER;
	walk_list(s, w);
	LOOP(w->len, overloaded_step, &w);
	return w->chosen == NO_SERVER ? EVENT_DROP_NO_SERVER : EVENT_DROP_OVERLOADED;
}

#endif
