/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new connection gets into the table, once, on however many CPUs its packets come at the same moment. */
#ifndef LBNODE_ENTER_H
#define LBNODE_ENTER_H

#include "older.h"
#include "room.h"

/* --- rivals -------------------------------------------------------------------------------------------------------- */

#define RIVAL_ROUNDS 4096 /* some 10 us: entering a connection takes less, but for one that an interrupt breaks in on */

struct rival {
	__u64 hash;
	__u64 word; /* out: what the way said last */
	__u32 number;
	__u32 way;
};

static long rival_step(__u32 round, struct rival *r)
{
	__u32 number = r->number;
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	if (!bucket)
		return 1;
	r->word = *(volatile __u64 *)&bucket->word[r->way & (BUCKET_WAYS - 1)];
	return !is_entering(r->word, r->hash);
}
LOOPED(rival_step, struct rival)

/* Whether another CPU has entered the same connection into this way. What is being entered may be it, so that is awaited. */
GLOBAL int is_rival(const struct new_conn *new, __u32 number, __u32 way)
{
	if (!new)
		return 1;
	struct rival r = {.hash = new->hash, .number = number, .way = way};
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	LOOP(RIVAL_ROUNDS, rival_step, &r);
	if (!bucket || way >= BUCKET_WAYS || is_entering(r.word, new->hash))
		return 1;
	return word_used(r.word) && tuple_equal(&bucket->way[way].in, &new->conn.in);
}

#define NO_RIVAL 0xffffffffU
#define RIVAL_ENTERED 0xfffffffeU

/*
 * Of a way that this CPU owns: is the connection in another one, too? Two CPUs that enter it both see the other's tag, or
 * one of them does. Whose way comes first waits for the other, who gives way. NO_RIVAL, RIVAL_ENTERED, or the place (bucket
 * * BUCKET_WAYS + way) to wait for without a way.
 */
GLOBAL __u32 find_rival(const struct new_conn *new, __u32 number, __u32 way)
{
	if (!new)
		return NO_RIVAL;
	__u32 mask = bucket_count() - 1, tag = hash_tag(new->hash), own = number * BUCKET_WAYS + way;
	for (int choice = 0; choice < 2; choice++) {
		__u32 other = hash_bucket(new->hash, choice, mask);
		struct bucket *bucket = bpf_map_lookup_elem(&conns, &other);
		if (!bucket)
			return NO_RIVAL;
		for (int i = 0; i < BUCKET_WAYS; i++) {
			__u64 word = *(volatile __u64 *)&bucket->word[i];
			__u32 at = other * BUCKET_WAYS + i;
			if (likely(word_tag(word) != tag) || at == own)
				continue;
			if (word_state(word) == STATE_BUSY && at < own)
				return at;
			if (is_rival(new, other, i))
				return RIVAL_ENTERED;
		}
	}
	return NO_RIVAL;
}

/* --- entering ------------------------------------------------------------------------------------------------------ */

#define ADD_TRIES 8 /* lost to other CPUs, each of which took the way that was best */

enum added {
	ADDED,
	ADDED_NOT,     /* no room */
	ADDED_ALREADY, /* by another CPU, just now */
	ADDED_NO_PORT,
	ADDED_NEEDS_MOVE, /* no way is free; after move_one() there may be one */
};

/* Free a way that this CPU owns; `word`: what it said before. */
GLOBAL int conn_release(__u32 number, __u32 way, __u64 word)
{
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	if (bucket && way < BUCKET_WAYS)
		__sync_lock_test_and_set(&bucket->word[way], WORD(word_generation(word) + 1, 0, 0, STATE_NONE));
	return 0;
}

/* Own a way for a new connection: `offer`. Returns enum added. */
INLINE int take_way(struct new_conn *new, struct offer *offer)
{
	for (int try = 0; try <= ADD_TRIES; try++) {
		int room = choose_way(new, offer);
		if (unlikely(room == ROOM_BY_MOVE))
			return ADDED_NEEDS_MOVE;
		if (unlikely(room == ROOM_FULL))
			return ADDED_NOT;
		__u32 rival = offer->number * BUCKET_WAYS + offer->way;
		if (likely(room == ROOM_FREE && conn_seize(offer->number, offer->way, offer->word, new->hash) == 0)) {
			if (offer->price < PRICE_EXPIRED)
				count(EVENT_EVICTED);
			rival = find_rival(new, offer->number, offer->way);
			if (likely(rival == NO_RIVAL))
				return ADDED;
			conn_release(offer->number, offer->way, offer->word);
		}
		if (rival == RIVAL_ENTERED || is_rival(new, rival / BUCKET_WAYS, rival % BUCKET_WAYS))
			return ADDED_ALREADY;
	}
	return ADDED_NOT;
}

/* Put a new connection into the table. Returns enum added. */
GLOBAL int conn_add(struct new_conn *new)
{
	struct config *config = get_config();
	struct offer offer = {};
	if (!new || !config)
		return ADDED_NOT;
	int added = take_way(new, &offer);
	if (added != ADDED)
		return added;
	struct place place = {.number = offer.number, .way = offer.way};
	place.bucket = bpf_map_lookup_elem(&conns, &offer.number);
	if (!place.bucket)
		return ADDED_NOT;
	__u32 generation = word_generation(offer.word) + 1;
	if (is_translated(new->conn.forward) && new->state != STATE_TEMPLATE) {
		__u64 hash = tuple_hash(&new->back.out, config->seed);
		if (reply_add(hash, reply_ref(hash, place.number, place.way)) != 0) {
			conn_release(place.number, place.way, offer.word);
			return ADDED_NOT;
		}
	}
	*place_conn(&place) = new->conn;
	*place_back(&place) = new->back;
	__u64 word = WORD(generation, hash_tag(new->hash), new->flags, new->state);
	gauge_word(&new->conn, word, 1);
	count_entries(1);
	conn_publish(&place, word);
	new->ref = conn_ref(&place, generation);
	return ADDED;
}

/* The same, with a move if there has to be one; not in conn_add() for the stack's sake. */
INLINE int conn_enter(struct new_conn *new)
{
	int added = conn_add(new);
	if (unlikely(added == ADDED_NEEDS_MOVE)) {
		move_one(new);
		added = conn_add(new);
	}
	return added;
}

#endif
