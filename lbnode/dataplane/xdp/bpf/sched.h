/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The choice of a server for a new connection. The algorithms are IPVS's (net/netfilter/ipvs), so that on one CPU the
 * sequence of servers is the same; a file for each family.
 */
#ifndef LBNODE_SCHED_H
#define LBNODE_SCHED_H

#include "sched_hash.h"
#include "sched_least.h"
#include "sched_list.h"
#include "sched_local.h"
#include "sched_random.h"

/* ip_vs_service_find: by firewall mark, then by address and port, then what serves all ports of the address. */
INLINE struct service *find_service(const struct tuple *t, __u8 family, __u32 mark)
{
	struct service_key key = {.family = family, .mark = mark};
	struct service *service = mark ? bpf_map_lookup_elem(&services, &key) : NULL;
	if (service)
		return service;
	key.mark = 0;
	key.address = t->target;
	key.port = t->target_port;
	key.protocol = t->protocol;
	service = bpf_map_lookup_elem(&services, &key);
	if (service)
		return service;
	key.port = 0;
	return bpf_map_lookup_elem(&services, &key);
}

/* The choice depends on the packet's addresses and the servers alone. */
INLINE bool hash_scheduler(const struct service *s)
{
	return s->scheduler == SCHED_SH || s->scheduler == SCHED_MH || s->scheduler == SCHED_DH;
}

/* Server for a new connection, or NO_SERVER. `w` is working memory. */
GLOBAL int schedule(struct service *s, const struct tuple *t, struct walk *w)
{
	if (!s || !t || !w)
		return NO_SERVER;
	switch (s->scheduler) {
	case SCHED_SH:
	case SCHED_MH:
	case SCHED_DH:
		return schedule_hash(s, t);
	case SCHED_FO:
	case SCHED_OVF:
		return schedule_first(s, w);
	case SCHED_LC:
	case SCHED_WLC:
	case SCHED_SED:
	case SCHED_NQ:
		return schedule_least(s, w);
	case SCHED_LBLC:
	case SCHED_LBLCR:
		return schedule_local(s, t, w);
	case SCHED_TWOS:
		return schedule_twos(s, w);
	default:
		return schedule_cursor(s, w);
	}
}

#endif
