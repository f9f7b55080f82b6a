/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet does to its connection: state, idle time, counters, report to the peers. */
#ifndef LBNODE_TRACK_H
#define LBNODE_TRACK_H

#include "conn.h"

INLINE void stats_packet(struct stats *stats, bool in, __u32 bytes, __u32 connections)
{
	if (!stats)
		return;
	stats->connections += connections;
	if (in) {
		stats->packets_in++;
		stats->bytes_in += bytes;
	} else {
		stats->packets_out++;
		stats->bytes_out += bytes;
	}
}

INLINE void account(__u32 index, const struct server *server, bool in, __u32 bytes, __u32 connections)
{
	__u32 service = server->service;
	stats_packet(bpf_map_lookup_elem(&server_stats, &index), in, bytes, connections);
	stats_packet(bpf_map_lookup_elem(&service_stats, &service), in, bytes, connections);
}

/* Connections that a peer could not rebuild, or not well: not the half-open ones. */
INLINE bool worth_sync(__u64 word)
{
	return word_used(word) && !state_half_open(word) && !(word_flags(word) & CONN_IMPORTED);
}

#define PUSH_TRIES 4 /* lost to other CPUs: the sweeper reports the connection later */

/* Reserve the position at the tail by compare-and-swap, then fill it: the reader waits at a position that is still 0. */
INLINE bool push_changed(__u64 ref)
{
	__u32 zero = 0, size = map_size(&changed);
	struct changed_ends *ends = bpf_map_lookup_elem(&changed_ends, &zero);
	if (!ends)
		return false;
	for (int try = 0; try < PUSH_TRIES; try++) {
		__u32 tail = *(volatile __u32 *)&ends->tail, at = tail & (size - 1);
		if (tail - *(volatile __u32 *)&ends->head >= size)
			return false;
		if (__sync_val_compare_and_swap(&ends->tail, tail, tail + 1) != tail)
			continue;
		__u64 *slot = bpf_map_lookup_elem(&changed, &at);
		if (slot)
			__sync_lock_test_and_set(slot, ref);
		return true;
	}
	return false;
}

/* The oldest one; 0: there is none. One caller at a time. */
INLINE __u64 pop_changed(void)
{
	__u32 zero = 0;
	struct changed_ends *ends = bpf_map_lookup_elem(&changed_ends, &zero);
	if (!ends)
		return 0;
	__u32 at = ends->head & (map_size(&changed) - 1);
	__u64 *slot = bpf_map_lookup_elem(&changed, &at);
	__u64 ref = slot ? __sync_lock_test_and_set(slot, 0) : 0;
	if (ref)
		__sync_fetch_and_add(&ends->head, 1); /* after the slot is free again */
	return ref;
}

/* Queue a connection whose word has just got CONN_CHANGED. */
INLINE void report(struct place *p)
{
	__u64 ref = conn_ref(p, word_generation(p->word));
	if (!push_changed(ref)) {
		count(EVENT_SYNC_LOST);
		__sync_fetch_and_and(place_word(p), ~((__u64)CONN_CHANGED << 8));
	}
}

/*
 * The word after a packet. `event`: enum tcp_event, TCP_NOTHING for UDP. CONN_CHANGED is put in where the peers should
 * hear of it and the connection is not in the queue yet.
 */
INLINE __u64 next_word(__u64 word, const struct config *config, __u32 direction, __u32 event)
{
	__u32 state = word_state(word), flags = word_flags(word);
	__u32 next = tcp_next(direction, event, state), next_flags = flags & ~CONN_IMPORTED;
	if (state == STATE_UDP)
		next_flags |= CONN_ASSURED;
	else if (state_active(next))
		next_flags &= ~CONN_INACTIVE;
	else
		next_flags |= CONN_INACTIVE;
	if (likely(next == state && next_flags == flags))
		return word;
	if (!state_half_open(WORD(0, 0, next_flags, next)))
		next_flags &= ~CONN_HALF_OPEN;
	__u64 result = word_with(word, next_flags, next);
	if ((config->flags & CONFIG_SYNC) && worth_sync(result))
		result |= (__u64)CONN_CHANGED << 8;
	return result;
}

/* ip_vs_control_assure_ct: a connection of the template's client proved to be one. */
GLOBAL int template_assure(__u64 ref)
{
	struct config *config = get_config();
	struct place place = {};
	if (!config || !conn_at(ref, &place) || word_flags(place.word) & CONN_ASSURED)
		return 0;
	__u64 word = place.word | (__u64)CONN_ASSURED << 8;
	if (config->flags & CONFIG_SYNC && worth_sync(word))
		word |= (__u64)CONN_CHANGED << 8;
	if (!swap_word(place_word(&place), place.word, word))
		return 0; /* the next packet that changes a state tries again */
	__u64 turned = place.word ^ word;
	place.word = word;
	if (word_flags(turned) & CONN_CHANGED)
		report(&place);
	return 0;
}

#define TRACK_TRIES 3 /* the other direction's packets may be on another CPU */

/* A packet of a known connection. */
INLINE void track(struct place *p, const struct config *config, struct server *server, __u32 direction, __u32 event,
		  __u32 now)
{
	struct conn *c = place_conn(p);
	if (c->last_ms != now)
		c->last_ms = now;
	for (int try = 0; try < TRACK_TRIES; try++) {
		__u64 old = p->word, new = next_word(old, config, direction, event);
		if (likely(new == old))
			return;
		__u64 seen = __sync_val_compare_and_swap(place_word(p), old, new);
		if (seen == old) {
			__u32 turned = word_flags(old ^ new);
			__s32 change = word_flags(new) & CONN_INACTIVE ? 1 : -1;
			p->word = new;
			if (turned & CONN_INACTIVE)
				gauge_add(p->server, server, -change, change);
			if (turned & CONN_HALF_OPEN)
				half_open_add(server->service, -1);
			if (turned & CONN_CHANGED)
				report(p);
			if (unlikely(place_back(p)->control) && !state_half_open(new))
				template_assure(place_back(p)->control);
			return;
		}
		if (word_generation(seen) != word_generation(old))
			return; /* it is over; the way may be somebody else's */
		p->word = seen;
	}
}

#endif
