/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Room for a new connection: a free way of its two buckets; or one that a connection leaves which goes to its own other
 * bucket (cuckoo hashing, Pagh and Rodler 2004: one step of it); or that of a connection which may be given up. Where
 * connections come and go at random, one in 20000 finds no room at 90 % fill, and one in 130 at 95 %
 * (tests/unit/test_xdp_room.py).
 */
#ifndef LBNODE_ROOM_H
#define LBNODE_ROOM_H

#include "conn.h"

struct new_conn {
	struct conn conn;
	struct back back;
	__u64 hash; /* of conn.in */
	__u16 state;
	__u16 flags;
	__u32 searched; /* move_one() has done what it can */
	__u64 ref;	/* out: where it is, as in back.control */
};

/* --- a free way ---------------------------------------------------------------------------------------------------- */

/*
 * What is free of a bucket: how many ways << 8 | the best one for the connection. -1 - way: another CPU has entered it
 * there, or may be about to: a packet that was sent twice, or one of a burst.
 */
GLOBAL int free_ways(const struct new_conn *new, __u32 number)
{
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	int free = 0;
	if (!new || !bucket)
		return -1;
	__u32 tag = hash_tag(new->hash), best = hash_way(new->hash);
	for (int way = BUCKET_WAYS - 1; way >= 0; way--) {
		__u64 word = *(volatile __u64 *)&bucket->word[way];
		if (word_state(word) == STATE_NONE)
			free = ((free & 0xff00) + 0x100) | way;
		else if (word_tag(word) == tag &&
			 (word_state(word) == STATE_BUSY || tuple_equal(&bucket->way[way].in, &new->conn.in)))
			return -1 - way;
	}
	if (free && word_state(*(volatile __u64 *)&bucket->word[best]) == STATE_NONE)
		free = (free & 0xff00) | best;
	return free;
}

/* --- a way that a connection leaves -------------------------------------------------------------------------------- */

/* Packets may change a connection's state while it is moved: so has its copy to. */
INLINE void copy_state(struct place *to, __u64 word)
{
	__u64 changed = word_with(to->word, word_flags(word) & ~CONN_CHANGED, word_state(word));
	if (changed == to->word || !swap_word(place_word(to), to->word, changed))
		return;
	__u32 turned = word_flags(to->word ^ changed), index = place_conn(to)->server;
	__s32 change = word_flags(changed) & CONN_INACTIVE ? 1 : -1;
	struct server *server = get_server(index, place_conn(to)->generation);
	if (server && turned & CONN_INACTIVE)
		gauge_add(index, server, -change, change);
	if (server && turned & CONN_HALF_OPEN)
		half_open_add(server->service, -1);
	to->word = changed;
}

#define MOVE_TRIES 4 /* lost to packets that change its state, which happens some times in its life */

/* Take an entry out that only this CPU knows of, packets aside. */
INLINE void withdraw(struct place *p)
{
	for (int try = 0; try < MOVE_TRIES; try++) {
		if (conn_remove(p))
			return;
		__u64 word = *(volatile __u64 *)place_word(p);
		if (word_generation(word) != word_generation(p->word) || !word_used(word))
			return;
		p->word = word;
	}
}

/*
 * Move a connection to its other bucket. First it is in both, then replies lead to the new place, then the old one is
 * freed: it is found at any time, but by a packet that looked at the new place before and at the old one after, which
 * looks again (decide.h). Templates stay, since connections name their places, and so do connections that began with a
 * cookie, whose packets come back to their places. 0, or -1: it has to stay.
 */
GLOBAL int conn_move(__u32 number, __u32 way)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct place from = {.number = number, .way = way}, to = {};
	from.bucket = bpf_map_lookup_elem(&conns, &number);
	if (!from.bucket || !config || !clock)
		return -1;
	from.word = *(volatile __u64 *)place_word(&from);
	if (!word_used(from.word) || word_state(from.word) == STATE_TEMPLATE || word_flags(from.word) & CONN_PROXIED)
		return -1;
	__u64 hash = tuple_hash(&place_conn(&from)->in, config->seed);
	__u32 mask = bucket_count() - 1, first = hash_bucket(hash, 0, mask), tag = hash_tag(hash);
	to.number = first == number ? hash_bucket(hash, 1, mask) : first;
	to.bucket = bpf_map_lookup_elem(&conns, &to.number);
	if (!to.bucket || to.number == number || word_tag(from.word) != tag)
		return -1;
	to.way = hash_way(hash);
	to.word = *(volatile __u64 *)place_word(&to);
	for (int i = 0; i < BUCKET_WAYS && word_state(to.word) != STATE_NONE; i++) {
		to.way = i;
		to.word = *(volatile __u64 *)place_word(&to);
	}
	__u32 generation = word_generation(to.word) + 1;
	if (word_state(to.word) != STATE_NONE || !swap_word(place_word(&to), to.word, busy_word(generation, hash)))
		return -1;
	*place_conn(&to) = *place_conn(&from);
	*place_back(&to) = *place_back(&from);
	if (!place_unchanged(&from)) {
		conn_publish(&to, WORD(generation, 0, 0, STATE_NONE));
		return -1;
	}
	struct conn *c = place_conn(&to);
	if (!(word_flags(from.word) & CONN_IMPORTED))
		c->synced_ms = 0; /* a walk through the table may miss what is moved, so the sweeper reports it */
	to.word = WORD(generation, tag, word_flags(from.word) & ~CONN_CHANGED, word_state(from.word));
	gauge_twice(c, to.word);
	count_entries(1);
	conn_publish(&to, to.word);
	if (is_translated(c->forward)) {
		hash = tuple_hash(&place_back(&to)->out, config->seed);
		__u64 new = reply_ref(hash, to.number, to.way);
		if (reply_swap(hash, reply_ref(hash, number, way), new)) {
			withdraw(&to);
			return -1;
		}
		if (!place_unchanged(&to)) /* it is over: who ended it did not see the reference */
			reply_swap(hash, new, 0);
	}
	__sync_fetch_and_add(&clock->moves, 1);
	for (int try = 0; try < MOVE_TRIES; try++) {
		if (conn_remove(&from))
			return 0;
		__u64 word = *(volatile __u64 *)place_word(&from);
		if (word_generation(word) != word_generation(from.word))
			break; /* it is over */
		from.word = word;
		copy_state(&to, word);
	}
	withdraw(&to);
	return -1;
}

/*
 * Let a connection go to its other bucket, so that this one finds room. The table may be full, and it is tried in vain:
 * that costs some 16 lines of the cache, so it is done so many times a tick only.
 */
GLOBAL int move_one(struct new_conn *new)
{
	struct clock *clock = get_clock();
	if (!new || !clock)
		return -1;
	new->searched = 1;
	__u32 mask = bucket_count() - 1;
	__u32 first = hash_bucket(new->hash, 0, mask), second = hash_bucket(new->hash, 1, mask);
	for (int i = 0; i < 2 * BUCKET_WAYS; i++)
		if (conn_move(i < BUCKET_WAYS ? first : second, i & (BUCKET_WAYS - 1)) == 0)
			return 0;
	__sync_fetch_and_add(&clock->searches, -1);
	return -1;
}

/* --- the way of a connection that is given up ---------------------------------------------------------------------- */

/* The way for a new connection. */
struct offer {
	__u64 price;
	__u64 word;
	__u32 number; /* of the bucket */
	__u32 way;
};

#define PRICE_FREE (4ULL << 32)
#define PRICE_EXPIRED (3ULL << 32)
#define PRICE_HALF_OPEN (2ULL << 32)
#define PRICE_FINISHED (1ULL << 32)

/*
 * How gladly a way is given away for a new connection; the upper bits are the class, the lower its idle time: expired,
 * then the half-open one that waits longest, then the finished one. 0: not at all.
 */
INLINE __u64 conn_price(const struct config *config, const struct conn *c, __u64 word, __u32 now)
{
	if (!word_used(word))
		return 0;
	if (conn_expired(config, c, word, now))
		return PRICE_EXPIRED;
	__u32 idle = conn_idle(c, now);
	if (state_half_open(word))
		return PRICE_HALF_OPEN | idle;
	if (state_finished(word_state(word)))
		return PRICE_FINISHED | idle;
	return 0;
}

/* The best way of `best` and of this bucket. */
GLOBAL int conn_offer(struct offer *best, __u32 number)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	if (!best || !bucket || !config || !clock)
		return -1;
	__u32 now = clock->now_ms;
	for (int way = 0; way < BUCKET_WAYS; way++) {
		__u64 word = *(volatile __u64 *)&bucket->word[way];
		__u64 price = conn_price(config, &bucket->way[way], word, now);
		if (price > best->price) {
			best->price = price;
			best->word = word;
			best->number = number;
			best->way = way;
		}
	}
	return 0;
}

/* --- the best way -------------------------------------------------------------------------------------------------- */

#define SPARE 3 /* ways: while its first bucket has so many, a connection lies there, where it is found sooner */

enum room {
	ROOM_FREE,    /* `offer`; or that of one that is given up */
	ROOM_RIVAL,   /* `offer`, but another CPU was faster, perhaps with the same connection */
	ROOM_BY_MOVE, /* perhaps after move_one() */
	ROOM_FULL,
};

/* A free way. Returns enum room. */
GLOBAL int find_room(const struct new_conn *new, struct offer *offer)
{
	struct clock *clock = get_clock();
	if (!new || !offer || !clock)
		return ROOM_FULL;
	__u32 mask = bucket_count() - 1, number = hash_bucket(new->hash, 0, mask);
	int free = free_ways(new, number);
	if (free >= 0 && free < SPARE << 8) {
		__u32 second = hash_bucket(new->hash, 1, mask);
		int other = free_ways(new, second);
		if (other < 0 || other >> 8 > free >> 8) {
			free = other;
			number = second;
		}
	}
	if (unlikely(!free))
		return new->searched || (__s32)clock->searches <= 0 ? ROOM_FULL : ROOM_BY_MOVE;
	offer->number = number;
	offer->way = (free < 0 ? -1 - free : free) & (BUCKET_WAYS - 1);
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	if (unlikely(free < 0) || !bucket)
		return ROOM_RIVAL;
	offer->price = PRICE_FREE;
	offer->word = *(volatile __u64 *)&bucket->word[offer->way & (BUCKET_WAYS - 1)];
	return word_state(offer->word) == STATE_NONE ? ROOM_FREE : ROOM_RIVAL;
}

/* The best way for a new connection. Returns enum room. */
INLINE int choose_way(struct new_conn *new, struct offer *offer)
{
	int room = find_room(new, offer);
	if (room != ROOM_FULL)
		return room;
	__u32 mask = bucket_count() - 1;
	offer->price = 0;
	conn_offer(offer, hash_bucket(new->hash, 0, mask));
	if (offer->price < PRICE_HALF_OPEN)
		conn_offer(offer, hash_bucket(new->hash, 1, mask));
	return offer->price ? ROOM_FREE : ROOM_FULL;
}

#endif
