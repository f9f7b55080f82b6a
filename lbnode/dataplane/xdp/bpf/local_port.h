/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Full NAT: which local address and port a connection gets. Its way back, server -> local address, must be that of no other
 * connection, also of those that a peer told of. So nothing keeps books about ports beside the table: one is free if the
 * table has no such way back. Ports are drawn at random (RFC 6056 3.3.1), so that at half load the second one is free.
 */
#ifndef LBNODE_LOCAL_PORT_H
#define LBNODE_LOCAL_PORT_H

#include "enter.h"

/* Below Linux's ip_local_port_range (32768 on): the gateway's own connections, health checks of the same server among them,
   never have the same port. */
#define LOCAL_PORT_FIRST 1024
#define LOCAL_PORTS 31744
#define PORT_DRAWS 128 /* where 95 % of the ports are in use, one in 700 connections finds none */

/*
 * Who enters a way back into the table holds its claim from the look until it is entered: no other CPU enters the same one
 * between. Several share a claim: who draws ports goes on to the next one, and who has no choice waits a moment.
 */
#define CLAIMS 4096
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLAIMS);
	__type(key, __u32);
	__type(value, __u64);
} claims SEC(".maps");

INLINE __u64 *claim_of(__u64 hash)
{
	__u32 key = (hash >> 8) & (CLAIMS - 1);
	return bpf_map_lookup_elem(&claims, &key);
}

INLINE bool claim(__u64 hash)
{
	__u64 *word = claim_of(hash);
	return word && swap_word(word, 0, 1);
}

static long claim_step(__u32 round, __u64 *hash)
{
	__u64 *word = claim_of(*hash);
	if (word && (*(volatile __u64 *)word || !swap_word(word, 0, 1)))
		return 0;
	*hash = 0;
	return 1;
}
LOOPED(claim_step, __u64)

/* 0, or -1: another CPU held it for longer than a moment. */
GLOBAL int claim_soon(__u64 hash)
{
	LOOP(RIVAL_ROUNDS, claim_step, &hash);
	return hash ? -1 : 0;
}

INLINE void disclaim(__u64 hash)
{
	__u64 *word = claim_of(hash);
	if (word)
		__sync_lock_test_and_set(word, 0);
}

/* Where a search for a local port stands. */
struct port_search {
	struct addr address; /* of the oldest half-open connection met */
	__be16 port;
	__u16 claimed; /* `out` of the new connection is free, and claimed */
	__u32 at;      /* that connection: bucket * BUCKET_WAYS + way + 1; 0 = none was met */
	__u32 idle_ms;
	__u32 reserved;
	__u64 hash; /* of `out` */
};

struct port_draw {
	struct new_conn *new;
	struct port_search *search;
	const struct pool *pool;
};

/* Half-open connections that hold ports give way as they do where the table is full: a flood must not use the pool up. */
INLINE void remember_half_open(struct port_search *search, const struct tuple *out, __u32 at, __u32 now)
{
	struct place place = {.number = (at - 1) / BUCKET_WAYS, .way = (at - 1) % BUCKET_WAYS};
	place.bucket = bpf_map_lookup_elem(&conns, &place.number);
	if (!place.bucket || !state_half_open(*(volatile __u64 *)place_word(&place)))
		return;
	__u32 idle = now - place_conn(&place)->last_ms;
	if (search->at && idle <= search->idle_ms)
		return;
	search->address = out->target;
	search->port = out->target_port;
	search->at = at;
	search->idle_ms = idle;
}

static long port_draw(__u32 i, struct port_draw *draw)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct tuple *out = &draw->new->back.out;
	struct port_search *search = draw->search;
	__u32 dice = bpf_get_prandom_u32(), which = ((dice >> 16) * draw->pool->count) >> 16;
	if (!config || !clock || which >= POOL_ADDRESSES)
		return 1;
	out->target = draw->pool->address[which];
	out->target_port = bpf_htons(LOCAL_PORT_FIRST + ((dice & 0xffff) * LOCAL_PORTS >> 16));
	search->hash = tuple_hash(out, config->seed);
	if (!claim(search->hash))
		return 0;
	int at = find_reply(out, search->hash);
	if (!at) {
		search->claimed = 1;
		return 1;
	}
	disclaim(search->hash);
	remember_half_open(search, out, at, clock->now_ms);
	return 0;
}
LOOPED(port_draw, struct port_draw)

/* The oldest half-open connection that was met gives its port up. */
INLINE bool evict_half_open(struct tuple *out, struct port_search *search)
{
	struct config *config = get_config();
	struct place place = {.number = (search->at - 1) / BUCKET_WAYS, .way = (search->at - 1) % BUCKET_WAYS};
	if (!config || !search->at)
		return false;
	out->target = search->address;
	out->target_port = search->port;
	search->hash = tuple_hash(out, config->seed);
	if (!claim(search->hash))
		return false;
	place.bucket = bpf_map_lookup_elem(&conns, &place.number);
	if (place.bucket) {
		place.word = *(volatile __u64 *)place_word(&place);
		if (word_used(place.word) && state_half_open(place.word) && conn_remove(&place)) {
			count(EVENT_EVICTED);
			if (!find_reply(out, search->hash))
				return true;
		}
	}
	disclaim(search->hash);
	return false;
}

/*
 * conn_add() for full NAT: `out` of the new connection gets its target here. Meanwhile another CPU may have entered the same
 * client's SYN, sent again: it would have two ports, so the client's side is claimed as well. Returns enum added.
 */
GLOBAL int conn_add_local(struct new_conn *new, struct port_search *search, __u32 pool_index)
{
	struct pool *pool = bpf_map_lookup_elem(&pools, &pool_index);
	if (!new || !search || !pool)
		return ADDED_NO_PORT;
	struct port_draw draw = {.new = new, .search = search, .pool = pool};
	int result = ADDED_ALREADY;
	__builtin_memset(search, 0, sizeof(*search));
	if (claim_soon(new->hash))
		return ADDED_ALREADY;
	if (find_ref(&new->conn.in))
		goto out;
	result = ADDED_NO_PORT;
	if (pool->count)
		LOOP(PORT_DRAWS, port_draw, &draw);
	if (!search->claimed && !evict_half_open(&new->back.out, search))
		goto out;
	result = conn_add(new);
	disclaim(search->hash);
out:
	disclaim(new->hash);
	return result;
}

/*
 * The same for a connection that a peer told of, whose local port is given: claim its way back. A connection of another client
 * that has it ended at the peer, or two nodes served at once: whichever had a packet more recently stays. 0, or -1.
 */
GLOBAL int claim_told(const struct tuple *out, __u32 last_ms)
{
	struct config *config = get_config();
	struct place place = {};
	if (!out || !config)
		return -1;
	__u64 hash = tuple_hash(out, config->seed);
	if (claim_soon(hash))
		return -1;
	if (!conn_find_reply(out, hash, &place))
		return 0;
	if ((__s32)(place_conn(&place)->last_ms - last_ms) <= 0 && conn_remove(&place))
		return 0;
	disclaim(hash);
	return -1;
}

GLOBAL int disclaim_told(const struct tuple *out)
{
	struct config *config = get_config();
	if (out && config)
		disclaim(tuple_hash(out, config->seed));
	return 0;
}

#endif
