/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is counted of a server's and a service's connections. A connection's word (lb.h: struct bucket) says as what it
 * counts.
 */
#ifndef LBNODE_GAUGE_H
#define LBNODE_GAUGE_H

#include "tcp.h"

/* --- a connection's word ------------------------------------------------------------------------------------------- */

#define WORD(generation, tag, flags, state)                                                                            \
	((__u64)(generation) << 32 | (__u64)(tag) << 16 | (__u64)((flags) & 0xff) << 8 | (state))
/* The same connection in another state. */
INLINE __u64 word_with(__u64 word, __u32 flags, __u32 state)
{
	return (word & ~0xffffULL) | (flags & 0xff) << 8 | state;
}
INLINE __u32 word_generation(__u64 word)
{
	return word >> 32;
}
INLINE __u32 word_tag(__u64 word)
{
	return (__u32)word >> 16;
}
INLINE __u32 word_flags(__u64 word)
{
	return (word >> 8) & 0xff;
}
INLINE __u32 word_state(__u64 word)
{
	return word & 0xff;
}
INLINE bool word_used(__u64 word)
{
	__u32 state = word_state(word);
	return state != STATE_NONE && state != STATE_BUSY;
}

INLINE bool swap_word(__u64 *at, __u64 old, __u64 new)
{
	return __sync_val_compare_and_swap(at, old, new) == old;
}

/* --- gauges -------------------------------------------------------------------------------------------------------- */

/* The server if its index was not given to another since; it may be deleted. */
INLINE struct server *get_server(__u32 index, __u32 generation)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	return server && server->generation == generation && generation ? server : NULL;
}

/* The server if packets still go to it. */
INLINE struct server *get_live_server(__u32 index, __u32 generation)
{
	struct server *server = get_server(index, generation);
	return server && !(server->flags & SERVER_GONE) ? server : NULL;
}

/* Replies pass here and are translated back. */
INLINE bool is_translated(__u8 forward)
{
	return forward == FORWARD_MASQUERADE || forward == FORWARD_FULLNAT;
}

/* Where a translated connection goes. */
INLINE __be16 server_port(const struct server *server, __be16 target_port)
{
	return server->flags & SERVER_KEEP_PORT ? target_port : server->port;
}

/* The servers' group does not know its least loaded member any more (sched_least.h). */
INLINE void group_changed(const struct server *server)
{
	__u32 index = server->group;
	struct group *group = index ? bpf_map_lookup_elem(&groups, &index) : NULL;
	if (group)
		__sync_fetch_and_add(&group->version, 1);
}

/* ip_vs_bind_dest, ip_vs_unbind_dest and the counting in set_tcp_state of IPVS: change both gauges by so much. */
INLINE void gauge_add(__u32 index, const struct server *server, __s32 active, __s32 inactive)
{
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (!gauge)
		return;
	if (active)
		__sync_fetch_and_add(&gauge->active, active);
	if (inactive)
		__sync_fetch_and_add(&gauge->inactive, inactive);
	if (unlikely(server->upper_threshold || gauge->overloaded)) {
		__s32 now = gauge->active + gauge->inactive;
		__u64 total = now > 0 ? now : 0, upper = server->upper_threshold, lower = server->lower_threshold;
		if (active + inactive > 0 && upper && total >= upper)
			gauge->overloaded = upper;
		else if (active + inactive < 0 && (lower ? total < lower : total * 4 < upper * 3 || !upper))
			gauge->overloaded = 0;
	}
	group_changed(server);
}

INLINE void persistent_add(__u32 index, __s32 change)
{
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (gauge)
		__sync_fetch_and_add(&gauge->persistent, change);
}

INLINE struct half_open *get_half_open(__u32 service)
{
	return bpf_map_lookup_elem(&half_open, &service);
}

/* Of a service that came again under the same index entries may be left that were never counted for it. */
INLINE void half_open_add(__u32 service, __s32 change)
{
	struct half_open *h = get_half_open(service);
	if (h && (change > 0 || h->entries > 0))
		__sync_fetch_and_add(&h->entries, change);
}

INLINE void gauge_word(const struct conn *c, __u64 word, __s32 change)
{
	struct server *server = get_server(c->server, c->generation);
	if (!server)
		return; /* the index may have another server by now: that one's gauges are not ours */
	if (word_flags(word) & CONN_HALF_OPEN)
		half_open_add(server->service, change);
	if (word_state(word) == STATE_TEMPLATE)
		persistent_add(c->server, change);
	else if (word_flags(word) & CONN_INACTIVE)
		gauge_add(c->server, server, 0, change);
	else
		gauge_add(c->server, server, change, 0);
}

/* A connection is in the table twice for a moment: no server reaches its threshold by that. */
INLINE void gauge_twice(const struct conn *c, __u64 word)
{
	struct server *server = get_server(c->server, c->generation);
	__u32 index = c->server;
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (!server || !gauge)
		return;
	if (word_flags(word) & CONN_HALF_OPEN)
		half_open_add(server->service, 1);
	__sync_fetch_and_add(word_flags(word) & CONN_INACTIVE ? &gauge->inactive : &gauge->active, 1);
}

#endif
