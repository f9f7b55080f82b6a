/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the families of schedulers share: who may get a new connection, and the working memory of a choice. */
#ifndef LBNODE_SCHED_WALK_H
#define LBNODE_SCHED_WALK_H

#include "older.h"

#define NO_SERVER SLOT_EMPTY

/* As ip_vs_dest's flag OVERLOAD: from the upper threshold on, until the connections are few enough (conn.h: gauge_add). */
INLINE bool overloaded(const struct server *server, const struct gauge *gauge)
{
	return gauge->overloaded && server->upper_threshold && server->upper_threshold <= gauge->overloaded;
}

INLINE bool may_get(const struct server *server, const struct gauge *gauge)
{
	return server && gauge && server->generation && server->weight && !overloaded(server, gauge);
}

/* The server if it may get a new connection, else NULL. */
INLINE struct server *available(__u32 index)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	return may_get(server, bpf_map_lookup_elem(&gauges, &index)) ? server : NULL;
}

/* How loaded a server is: `overhead` per `weight`. Products stay below 2^63: 2^24 connections, a weight of 31 bits. */
struct load {
	__u64 overhead;
	__u32 weight;
	__u32 rank;
	__u32 index; /* of `servers`, or NO_SERVER: nobody yet */
	__u32 reserved;
};

/*
 * State of a walk over a service's list or groups. Not on the stack: Linux 6.1 verifies a callback of bpf_loop for its
 * first round only, and cuts off branches that the values of that round do not take. Of memory outside the stack it
 * knows nothing.
 */
struct walk {
	__u32 list, len;
	__u32 at;    /* position looked at next */
	__u32 steps; /* wrr: left until the end of this pass over the list */
	__u32 cw, gcd, max;
	__u32 below; /* wrr: largest weight under cw that this pass saw */
	__u32 whole; /* wrr: this pass began at the head */
	__u32 wraps;
	__u32 chosen; /* index of the server, or NO_SERVER */
	__u32 lost;   /* wrr, rr: another CPU moved the cursor meanwhile */
	__u32 scheduler, epoch;
	__u32 group;  /* by load: index of the next group */
	__u32 spare;  /* lblc, lblcr: somebody has less than half as many active connections as its weight */
	__u32 looked; /* by load: low byte of the group's `best` */
	struct load load, best, least; /* of the server looked at, of the least loaded one of the group, of all */
	struct affinity affinity;      /* lblc, lblcr: what becomes of the target's entry */
};

/* One walk over the list, newest server first: the callback looks at `at`, and ends the walk by returning 1. */
INLINE void walk_list(const struct service *s, struct walk *w)
{
	w->list = s->list;
	w->len = s->list_len & 0xffff;
	w->at = 0;
	w->chosen = NO_SERVER;
}

#endif
