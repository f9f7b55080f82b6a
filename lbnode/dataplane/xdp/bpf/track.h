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

/* Queue a connection whose word has just got CONN_CHANGED. */
INLINE void report(struct place *p)
{
	__u64 ref = (__u64)word_generation(p->word) << 32 | (p->number * BUCKET_WAYS + p->way);
	if (bpf_map_push_elem(&changed, &ref, BPF_ANY)) {
		count(EVENT_SYNC_LOST);
		__sync_fetch_and_and(place_word(p), ~((__u64)CONN_CHANGED << 8));
	}
}

/* A packet of a known connection. `event`: enum tcp_event, TCP_NOTHING for UDP. */
INLINE void track(struct place *p, const struct config *config, struct server *server, __u32 direction, __u32 event,
		  __u32 now)
{
	struct conn *c = place_conn(p);
	if (c->last_ms != now)
		c->last_ms = now;
	__u32 state = word_state(p->word), flags = word_flags(p->word);
	__u32 next = tcp_next(direction, event, state), next_flags = flags & ~CONN_IMPORTED;
	if (state == STATE_UDP)
		next_flags |= CONN_ASSURED;
	else if (state_active(next))
		next_flags &= ~CONN_INACTIVE;
	else
		next_flags |= CONN_INACTIVE;
	if (likely(next == state && next_flags == flags))
		return;
	__u64 word = WORD(word_generation(p->word), next_flags, next);
	bool tell = (config->flags & CONFIG_SYNC) && worth_sync(word) && !(flags & CONN_CHANGED);
	if (tell)
		word |= (__u64)CONN_CHANGED << 8;
	if (!swap_word(place_word(p), p->word, word))
		return; /* another CPU changed it in the same instant; the next packet sees to the rest */
	p->word = word;
	if ((flags ^ next_flags) & CONN_INACTIVE) {
		__s32 change = next_flags & CONN_INACTIVE ? 1 : -1;
		gauge_add(p->server, server, -change, change);
	}
	if (tell)
		report(p);
}

#endif
