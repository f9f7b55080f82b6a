/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connections out of and into the table, as records (lb.h: struct record). Run by user space. */
#ifndef LBNODE_SYNC_H
#define LBNODE_SYNC_H

#include "local_port.h"
#include "persist.h"
#include "sched.h"
#include "sweep.h"

/* Copy one connection; false if it changed hands meanwhile. */
INLINE bool write_record(struct place *p, struct record *r, __u32 now)
{
	struct conn *c = place_conn(p);
	struct server *server = get_server(c->server, c->generation);
	r->in = c->in;
	r->out = place_back(p)->out;
	r->idle_ms = now - c->last_ms;
	r->mark = server ? server->mark : 0;
	r->state = word_state(p->word);
	r->flags = word_flags(p->word) & (CONN_ASSURED | CONN_NO_OUTPUT | CONN_PROXIED);
	r->forward = c->forward;
	r->result = 0;
	r->timeout_ms = conn_timeout(c, p->word);
	r->delta = word_flags(p->word) & CONN_PROXIED ? *place_delta(p) : 0;
	r->scale_in = c->scale_in;
	r->scale_out = c->scale_out;
	r->reserved[0] = r->reserved[1] = 0;
	return place_unchanged(p);
}

struct export {
	__u32 limit, count, bucket, now;
	__u32 flags;
	__u32 done;
};

static long take_changed_step(__u32 i, struct export *e)
{
	__u64 ref = pop_changed();
	if (!ref) {
		e->done = 1;
		return 1;
	}
	__u32 at = (__u32)ref - 1;
	struct place place = {.number = at / BUCKET_WAYS, .way = at % BUCKET_WAYS};
	place.bucket = bpf_map_lookup_elem(&conns, &place.number);
	if (!place.bucket)
		return 0;
	/* First the mark, then the copy: a change after the copy is reported once more. */
	__u64 word = *(volatile __u64 *)place_word(&place);
	if (word_generation(word) != (__u32)(ref >> 32) || !word_used(word))
		return 0;
	__sync_fetch_and_and(place_word(&place), ~((__u64)CONN_CHANGED << 8));
	place.word = *(volatile __u64 *)place_word(&place);
	struct record *r = bpf_map_lookup_elem(&records, &e->count);
	if (!r)
		return 1;
	if (word_used(place.word) && write_record(&place, r, e->now)) {
		place_conn(&place)->synced_ms = e->now ? e->now : 1;
		e->count++;
	}
	return e->count >= e->limit;
}
LOOPED(take_changed_step, struct export)

SEC("syscall")
int take_changed(struct records_args *args)
{
	struct clock *clock = get_clock();
	if (!clock)
		return -ENOENT;
	struct export e = {.limit = args->limit, .now = clock->now_ms};
	if (e.limit > RECORDS_MAX)
		e.limit = RECORDS_MAX;
	if (e.limit)
		LOOP(2 * RECORDS_MAX, take_changed_step, &e);
	args->count = e.count;
	args->done = e.done;
	return 0;
}

static long take_all_step(__u32 i, struct export *e)
{
	struct place place = {.number = e->bucket};
	if (e->count + BUCKET_WAYS > e->limit)
		return 1;
	place.bucket = bpf_map_lookup_elem(&conns, &place.number);
	if (!place.bucket) {
		e->done = 1;
		return 1;
	}
#pragma unroll /* Linux 6.1 refuses a loop whose end falls through to its beginning ("back-edge") */
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		place.way = way;
		place.word = *(volatile __u64 *)place_word(&place);
		if (!word_used(place.word) || (e->flags & RECORDS_SYNC && state_half_open(place.word)))
			continue;
		struct record *r = bpf_map_lookup_elem(&records, &e->count);
		if (r && write_record(&place, r, e->now))
			e->count++;
	}
	e->bucket++;
	return 0;
}
LOOPED(take_all_step, struct export)

SEC("syscall")
int take_all(struct records_args *args)
{
	struct clock *clock = get_clock();
	if (!clock)
		return -ENOENT;
	struct export e = {.limit = args->limit, .bucket = args->bucket, .now = clock->now_ms, .flags = args->flags};
	if (e.limit > RECORDS_MAX)
		e.limit = RECORDS_MAX;
	LOOP(args->steps ? args->steps : bucket_count() + 1, take_all_step, &e);
	args->count = e.count;
	args->bucket = e.bucket;
	args->done = e.done;
	return e.limit < BUCKET_WAYS ? -EINVAL : 0;
}

/* --- merge ----------------------------------------------------------------------------------------------------------- */

struct search {
	const struct record *record;
	__u32 list;
	__u32 found; /* index of the server, or NO_SERVER */
};

static long search_step(__u32 i, struct search *s)
{
	__u32 key = s->list + i;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	struct server *server = bpf_map_lookup_elem(&servers, index);
	if (!server || !server->generation || server->forward != s->record->forward)
		return 0;
	__be16 port = s->record->in.target_port;
	if (s->record->in.template)
		port = port ? server->port : 0;
	else if (is_translated(server->forward))
		port = server_port(server, port);
	if (port != s->record->out.source_port || !addr_equal(&server->address, &s->record->out.source))
		return 0;
	s->found = *index;
	return 1;
}
LOOPED(search_step, struct search)

INLINE bool record_valid(const struct record *r)
{
	bool udp = r->in.protocol == IPPROTO_UDP;
	if (!udp && r->in.protocol != IPPROTO_TCP && r->in.protocol != IPPROTO_SCTP &&
	    (r->in.protocol || !r->mark || !r->in.template))
		return false;
	if (r->in.template != (r->state == STATE_TEMPLATE) || r->in.reserved[0] || r->in.reserved[1])
		return false;
	if (r->out.protocol != r->in.protocol || r->forward > FORWARD_FULLNAT)
		return false;
	if (r->forward == FORWARD_FULLNAT && !r->in.template) {
		if (addr_is_v4(&r->out.target) != addr_is_v4(&r->out.source) || !r->out.target_port)
			return false;
	} else if (!addr_equal(&r->in.source, &r->out.target) || r->in.source_port != r->out.target_port) {
		return false;
	}
	if (r->flags & CONN_PROXIED && (r->in.protocol != IPPROTO_TCP || !is_translated(r->forward)))
		return false;
	if (r->in.template)
		return !r->in.source_port;
	return udp ? r->state == STATE_UDP : r->state > STATE_NONE && r->state < STATE_UDP;
}

/* A record of an entry's own connection: what it says becomes the entry's, without a moment in which there is none. */
INLINE int renew(struct place *p, const struct new_conn *new)
{
	struct conn *c = place_conn(p);
	if (new->state != STATE_TEMPLATE) {
		__u32 kept = word_flags(p->word) & CONN_CHANGED;
		__u64 word = word_with(p->word, new->flags | kept, new->state);
		if (new->flags & CONN_PROXIED) {
			*place_delta(p) = new->conn.delta;
			c->scale_in = new->conn.scale_in;
			c->scale_out = new->conn.scale_out;
		}
		if (!swap_word(place_word(p), p->word, word))
			return MERGE_OLDER; /* a packet uses it right now */
		if ((p->word ^ word) & ((CONN_INACTIVE | CONN_HALF_OPEN) << 8)) {
			gauge_word(c, p->word, -1);
			gauge_word(c, word, 1);
		}
		if (!place_back(p)->control)
			place_back(p)->control = new->back.control;
	}
	c->last_ms = new->conn.last_ms;
	c->synced_ms = new->conn.synced_ms;
	return MERGE_TAKEN;
}

/* Working memory of `merge`, which the stack has no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct new_conn);
} merging SEC(".maps");

INLINE struct new_conn *get_merging(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&merging, &zero);
}

/* Index of the server that the record names, in this range of `slots`; or NO_SERVER. */
GLOBAL __u32 find_told(const struct record *r, __u32 list, __u32 count)
{
	struct search search = {.record = r, .list = list, .found = NO_SERVER};
	if (r)
		LOOP(count & 0xffff, search_step, &search);
	return search.found;
}

/*
 * A record that overtakes time: its way here was so much shorter than that of the record before it, at most, that it seems to
 * tell of an earlier packet.
 */
#define HASTE_MS 2000

/*
 * This node's entry of the same connection gives way to a record that saw a packet more recently, or as recently; what is
 * known from a peer alone, also to one which says that the connection ends, and was made in more haste.
 */
GLOBAL int merge_one(struct record *r, __u32 late)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct new_conn *new = get_merging();
	if (!r || !config || !clock || !new)
		return MERGE_FULL;
	if (!record_valid(r))
		return MERGE_INVALID;
	struct service *service = find_service(&r->in, addr_is_v4(&r->in.target) ? 4 : 6, r->mark);
	if (!service)
		return MERGE_UNKNOWN;
	__u32 index = find_told(r, service->list, service->list_len);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	if (index == NO_SERVER || !server)
		return MERGE_UNKNOWN;
	bool template = r->state == STATE_TEMPLATE;
	if (template && !service->persistent_s)
		return MERGE_UNKNOWN;
	__u32 now = clock->now_ms, timeout_ms = template ? service->persistent_s * 1000 : 0;
	if (r->idle_ms >= (template ? timeout_ms : service_timeout(service->index, r->state)))
		return MERGE_OLDER;

	__builtin_memset(new, 0, sizeof(*new));
	new->hash = tuple_hash(&r->in, config->seed);
	new->state = r->state;
	new->flags = CONN_IMPORTED | (r->flags & (CONN_ASSURED | CONN_PROXIED)) |
		     (is_translated(r->forward) ? 0 : CONN_NO_OUTPUT) | (state_active(r->state) ? 0 : CONN_INACTIVE);
	new->back.control = template ? 0 : template_of(service, &r->in, r->mark);
	new->conn.in = r->in;
	new->back.out = r->out;
	new->conn.server = index;
	new->conn.generation = server->generation;
	new->conn.last_ms = now - r->idle_ms;
	new->conn.synced_ms = now ? now : 1;
	new->conn.forward = r->forward;
	new->conn.scale_in = r->scale_in;
	new->conn.scale_out = r->scale_out;
	if (new->flags & CONN_PROXIED)
		new->conn.delta = r->delta;
	else
		new->conn.timeout_ms = timeout_ms;

	struct place place = {};
	if (conn_find(&r->in, new->hash, &place)) {
		struct conn *c = place_conn(&place);
		bool used = !(word_flags(place.word) & CONN_IMPORTED) && !template;
		bool ends = !used && state_active(word_state(place.word)) && !state_active(r->state);
		if (now - c->last_ms + (ends ? HASTE_MS : 0) < r->idle_ms + (used ? late : 0))
			return MERGE_OLDER;
		if (place.server == index && place.generation == server->generation &&
		    tuple_equal(&place_back(&place)->out, &r->out) &&
		    !((word_flags(place.word) ^ new->flags) & CONN_PROXIED))
			return renew(&place, new);
		if (!conn_remove(&place))
			return MERGE_OLDER; /* a packet uses it right now */
	}
	bool claimed = r->forward == FORWARD_FULLNAT && !template;
	if (claimed && claim_told(&r->out, new->conn.last_ms))
		return MERGE_OLDER;
	int added = conn_enter(new);
	if (claimed)
		disclaim_told(&r->out);
	if (added == ADDED_ALREADY)
		return MERGE_OLDER; /* a packet uses it right now */
	return added == ADDED ? MERGE_TAKEN : MERGE_FULL;
}

struct import {
	__u32 taken;
	__u32 late;
};

static long merge_step(__u32 i, struct import *state)
{
	struct record *r = bpf_map_lookup_elem(&records, &i);
	if (!r)
		return 1;
	r->result = merge_one(r, state->late);
	if (r->result == MERGE_TAKEN) {
		state->taken++;
		count(EVENT_IMPORTED);
	}
	return 0;
}
LOOPED(merge_step, struct import)

SEC("syscall")
int merge(struct records_args *args)
{
	/* Clocks of two sets of maps do not tick at once. */
	struct import state = {.late = args->flags & RECORDS_CARRIED ? TICK_MS : 0};
	__u32 limit = args->limit > RECORDS_MAX ? RECORDS_MAX : args->limit;
	LOOP(limit, merge_step, &state);
	args->count = state.taken;
	return 0;
}

#endif
