/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The connection table: two choices of buckets, eight ways each (lb.h: struct bucket). Whoever moves a way's word to
 * STATE_BUSY by compare-and-swap owns the way until it writes the word again. Nobody waits for it but who enters what may
 * be the same connection (enter.h), and that for a moment.
 */
#ifndef LBNODE_CONN_H
#define LBNODE_CONN_H

#include "gauge.h"

struct place {
	struct bucket *bucket;
	__u32 number; /* of the bucket */
	__u32 way;
	__u64 word;
	__u32 server; /* of the connection found, read under this word */
	__u32 generation;
};

INLINE struct conn *place_conn(struct place *p)
{
	return &p->bucket->way[p->way & (BUCKET_WAYS - 1)];
}

INLINE struct back *place_back(struct place *p)
{
	return &p->bucket->back[p->way & (BUCKET_WAYS - 1)];
}

INLINE __u64 *place_word(struct place *p)
{
	return &p->bucket->word[p->way & (BUCKET_WAYS - 1)];
}

INLINE __u32 *place_delta(struct place *p)
{
	return &place_conn(p)->delta;
}

/* --- replies ------------------------------------------------------------------------------------------------------- */

INLINE __u64 reply_ref(__u64 hash, __u32 number, __u32 way)
{
	return (__u64)hash_reply_tag(hash) << 32 | (number * BUCKET_WAYS + way + 1);
}

/* Put `new` where `old` stands, in one of the two buckets of the hash. 0, or -1: `old` is in neither. */
GLOBAL int reply_swap(__u64 hash, __u64 old, __u64 new)
{
	__u32 mask = map_size(&replies) - 1;
	for (int choice = 0; choice < 2; choice++) {
		__u32 number = hash_bucket(hash, choice, mask);
		struct reply_bucket *bucket = bpf_map_lookup_elem(&replies, &number);
		if (!bucket)
			return -1;
		for (int i = 0; i < REPLY_WAYS; i++)
			if (bucket->ref[i] == old && swap_word(&bucket->ref[i], old, new))
				return 0;
	}
	return -1;
}

/* What is free of a bucket of `replies`: how many << 8 | the first one. */
GLOBAL int reply_free(__u32 number)
{
	struct reply_bucket *bucket = bpf_map_lookup_elem(&replies, &number);
	int free = 0;
	if (!bucket)
		return 0;
	for (int i = REPLY_WAYS - 1; i >= 0; i--)
		if (!bucket->ref[i])
			free = ((free & 0xff00) + 0x100) | i;
	return free;
}

#define REPLY_SPARE 4
#define REPLY_TRIES 8 /* lost to other CPUs, each of which took the one that was chosen */

/* Enter a reference into that of its two buckets which has more room; the first one will do if half of it is free. */
GLOBAL int reply_add(__u64 hash, __u64 ref)
{
	__u32 mask = map_size(&replies) - 1;
	for (int try = 0; try < REPLY_TRIES; try++) {
		__u32 number = hash_bucket(hash, 0, mask), second = hash_bucket(hash, 1, mask);
		int free = reply_free(number);
		if (free < REPLY_SPARE << 8) {
			int other = reply_free(second);
			if (other >> 8 > free >> 8) {
				number = second;
				free = other;
			}
		}
		struct reply_bucket *bucket = bpf_map_lookup_elem(&replies, &number);
		if (!free || !bucket)
			return -1;
		if (swap_word(&bucket->ref[free & (REPLY_WAYS - 1)], 0, ref))
			return 0;
	}
	return -1;
}

/* --- finding ------------------------------------------------------------------------------------------------------- */

/* True if the way still holds what `word` said while everything in between was read. */
INLINE bool place_unchanged(struct place *p)
{
	asm volatile("" ::: "memory");
	return word_generation(*(volatile __u64 *)place_word(p)) == word_generation(p->word);
}

INLINE bool place_read(struct place *p)
{
	struct conn *c = place_conn(p);
	p->server = c->server;
	p->generation = c->generation;
	return place_unchanged(p);
}

/* The way whose `in` tuple is `t`. */
INLINE bool conn_find(const struct tuple *t, __u64 hash, struct place *p)
{
	__u32 mask = bucket_count() - 1, tag = hash_tag(hash);
#pragma unroll
	for (int choice = 0; choice < 2; choice++) {
		p->number = hash_bucket(hash, choice, mask);
		p->bucket = bpf_map_lookup_elem(&conns, &p->number);
		if (!p->bucket)
			return false;
		p->way = hash_way(hash);
		p->word = *(volatile __u64 *)place_word(p);
		if (word_tag(p->word) == tag && word_used(p->word) && tuple_equal(&place_conn(p)->in, t))
			return place_read(p);
#pragma unroll
		for (int way = 0; way < BUCKET_WAYS; way++) {
			__u64 word = *(volatile __u64 *)&p->bucket->word[way];
			if (word_tag(word) != tag)
				continue;
			if (word_used(word) && tuple_equal(&p->bucket->way[way].in, t)) {
				p->way = way;
				p->word = word;
				return place_read(p);
			}
		}
	}
	return false;
}

/* Of a connection with this `out` tuple: bucket * BUCKET_WAYS + way + 1, if the reference leads there; else 0. */
INLINE int follow_reply(const struct tuple *t, __u64 ref)
{
	__u32 at = (__u32)ref - 1, number = at / BUCKET_WAYS;
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	return bucket && tuple_equal(&bucket->back[at % BUCKET_WAYS].out, t) ? at + 1 : 0;
}

/* Where a connection with this `out` tuple lies: bucket * BUCKET_WAYS + way + 1; 0: nowhere. */
GLOBAL int find_reply(const struct tuple *t, __u64 hash)
{
	__u32 mask = map_size(&replies) - 1, tag = hash_reply_tag(hash);
	if (!t)
		return 0;
	for (int choice = 0; choice < 2; choice++) {
		__u32 number = hash_bucket(hash, choice, mask);
		struct reply_bucket *bucket = bpf_map_lookup_elem(&replies, &number);
		if (!bucket)
			return 0;
		for (int i = 0; i < REPLY_WAYS; i++) {
			__u64 ref = *(volatile __u64 *)&bucket->ref[i];
			if ((__u32)(ref >> 32) != tag)
				continue;
			int at = follow_reply(t, ref);
			if (unlikely(!at)) /* it may have been moved meanwhile */
				at = follow_reply(t, *(volatile __u64 *)&bucket->ref[i]);
			if (at)
				return at;
		}
	}
	return 0;
}

INLINE bool conn_find_reply(const struct tuple *t, __u64 hash, struct place *p)
{
	__u32 at = find_reply(t, hash);
	if (!at--)
		return false;
	p->number = at / BUCKET_WAYS;
	p->way = at % BUCKET_WAYS;
	p->bucket = bpf_map_lookup_elem(&conns, &p->number);
	if (!p->bucket)
		return false;
	p->word = *(volatile __u64 *)place_word(p);
	return word_used(p->word) && tuple_equal(&place_back(p)->out, t) && place_read(p);
}

/* --- taking and giving ways -------------------------------------------------------------------------------------- */

/* What a way says while a connection with this hash is entered; hash 0: while it is emptied. */
INLINE __u64 busy_word(__u32 generation, __u64 hash)
{
	return WORD(generation, hash ? hash_tag(hash) : 0, 0, STATE_BUSY);
}

/* Whether another CPU enters such a connection into this way right now. */
INLINE bool is_entering(__u64 word, __u64 hash)
{
	return (__u32)word == (__u32)busy_word(0, hash);
}

/*
 * Own the way, for a connection with this `hash`, or 0 to empty it; what was in it is gone: counted off, no replies any
 * more. 0, or -1: another CPU was faster.
 */
GLOBAL int conn_seize(__u32 number, __u32 way, __u64 word, __u64 hash)
{
	struct config *config = get_config();
	struct bucket *bucket = bpf_map_lookup_elem(&conns, &number);
	if (!bucket || !config || way >= BUCKET_WAYS)
		return -1;
	if (!swap_word(&bucket->word[way], word, busy_word(word_generation(word) + 1, hash)))
		return -1;
	if (word_state(word) == STATE_NONE)
		return 0;
	struct conn *c = &bucket->way[way];
	gauge_word(c, word, -1);
	count_entries(-1);
	if (is_translated(c->forward) && word_state(word) != STATE_TEMPLATE) {
		__u64 hash = tuple_hash(&bucket->back[way].out, config->seed);
		reply_swap(hash, reply_ref(hash, number, way), 0);
	}
	return 0;
}

INLINE bool conn_take(struct place *p)
{
	return conn_seize(p->number, p->way, p->word, 0) == 0;
}

/* The word of a way that this CPU owns; an exchange, because it orders the writes before it on every architecture. */
INLINE void conn_publish(struct place *p, __u64 word)
{
	__sync_lock_test_and_set(place_word(p), word);
}

INLINE bool conn_remove(struct place *p)
{
	if (!conn_take(p))
		return false;
	conn_publish(p, WORD(word_generation(p->word) + 1, 0, 0, STATE_NONE));
	return true;
}

#define NO_SERVICE 0xffffffffU /* also in struct server: its service is gone */

/* Of a service's connections in this state: its own time-out, or else that of all. */
INLINE __u32 state_timeout(__u32 service, __u32 state)
{
	struct config *config = get_config();
	struct timeouts *own = bpf_map_lookup_elem(&timeouts, &service);
	if (own && own->ms[state & 15])
		return own->ms[state & 15];
	return config ? config->timeout_ms[state & 15] : 0;
}

GLOBAL __u32 service_timeout(__u32 service, __u32 state)
{
	return state_timeout(service, state);
}

/* Of one connection, by its server; `own_ms`: of a template. */
GLOBAL __u32 timeout_of(__u32 index, __u32 generation, __u32 own_ms, __u32 state)
{
	struct server *server = get_server(index, generation);
	return own_ms ? own_ms : state_timeout(server ? server->service : NO_SERVICE, state);
}

INLINE __u32 conn_timeout(const struct conn *c, __u64 word)
{
	__u32 state = word_state(word);
	return timeout_of(c->server, c->generation, state == STATE_TEMPLATE ? c->timeout_ms : 0, state);
}

/* Since the last packet. 0 where another CPU has seen a later tick of the clock than the caller. */
INLINE __u32 conn_idle(const struct conn *c, __u32 now)
{
	__u32 idle = now - c->last_ms;
	return unlikely(idle > 0xffff0000) ? 0 : idle;
}

INLINE bool conn_expired(const struct config *config, const struct conn *c, __u64 word, __u32 now)
{
	__u32 idle = conn_idle(c, now);
	return unlikely(idle > config->soonest_ms[word_state(word) & 15]) && idle > conn_timeout(c, word);
}

/* Names an entry as long as it lives. */
INLINE __u64 conn_ref(const struct place *p, __u32 generation)
{
	return (__u64)generation << 32 | (p->number * BUCKET_WAYS + p->way + 1);
}

/* The entry with this `in` tuple; 0: there is none. */
GLOBAL __u64 find_ref(const struct tuple *t)
{
	struct config *config = get_config();
	struct place place = {};
	if (!t || !config || !conn_find(t, tuple_hash(t, config->seed), &place))
		return 0;
	return conn_ref(&place, word_generation(place.word));
}

/* The entry that a reference names; false if it is over. */
INLINE bool conn_at(__u64 ref, struct place *p)
{
	__u32 at = (__u32)ref - 1;
	p->number = at / BUCKET_WAYS;
	p->way = at % BUCKET_WAYS;
	p->bucket = ref ? bpf_map_lookup_elem(&conns, &p->number) : NULL;
	if (!p->bucket)
		return false;
	p->word = *(volatile __u64 *)place_word(p);
	return word_used(p->word) && word_generation(p->word) == (__u32)(ref >> 32) && place_read(p);
}

#endif
