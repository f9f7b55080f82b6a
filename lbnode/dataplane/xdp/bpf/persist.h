/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Persistence (ip_vs_sched_persist): a client, or all of a network, keeps to the server it was given once, as long as its
 * template lives (lb.h: struct bucket). The template's time begins anew with each connection.
 */
#ifndef LBNODE_PERSIST_H
#define LBNODE_PERSIST_H

#include "enter.h"
#include "sched_walk.h"

/* The `in` tuple of the template that packets with this tuple belong to. */
INLINE void template_tuple(struct tuple *t, const struct service *s, const struct tuple *in, __u32 mark)
{
	__builtin_memset(t, 0, sizeof(*t));
	t->template = 1;
	t->source.half[0] = in->source.half[0] & s->persistent_mask.half[0];
	t->source.half[1] = in->source.half[1] & s->persistent_mask.half[1];
	if (!(s->flags & SERVICE_MARKED)) {
		t->target = in->target;
		t->target_port = s->flags & SERVICE_ALL_PORTS ? 0 : in->target_port;
		t->protocol = in->protocol;
	} else if (addr_is_v4(&in->source)) {
		addr_set_v4(&t->target, bpf_htonl(mark));
	} else {
		t->target.word[0] = bpf_htonl(mark);
	}
}

/* The template of a connection with this tuple, as back.control names it; 0: there is none. */
GLOBAL __u64 template_of(const struct service *s, const struct tuple *in, __u32 mark)
{
	struct tuple t;
	if (!s || !in || !s->persistent_s)
		return 0;
	template_tuple(&t, s, in, mark);
	return find_ref(&t);
}

/*
 * A template's server for a new connection: also one without weight, or whose threshold is reached. NO_SERVER: the
 * template, or its server, is not there any more.
 */
GLOBAL int template_use(__u64 ref)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct place place = {};
	if (!config || !clock || !conn_at(ref, &place))
		return NO_SERVER;
	struct conn *c = place_conn(&place);
	if (!get_live_server(place.server, place.generation) || conn_expired(config, c, place.word, clock->now_ms)) {
		conn_remove(&place);
		return NO_SERVER;
	}
	c->last_ms = clock->now_ms;
	if (word_flags(place.word) & CONN_IMPORTED)
		__sync_fetch_and_and(place_word(&place), ~((__u64)CONN_IMPORTED << 8));
	return place.server;
}

/* Remember the client's server. `new` is working memory. Returns back.control for its connections, 0: no room. */
GLOBAL __u64 template_add(struct new_conn *new, const struct service *s, const struct tuple *in, __u32 mark,
			  __u32 index)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	if (!new || !s || !in || !config || !clock || !server)
		return 0;
	struct conn *c = &new->conn;
	struct tuple *out = &new->back.out;
	__builtin_memset(new, 0, sizeof(*new));
	template_tuple(&c->in, s, in, mark);
	*out = c->in;
	out->source = server->address;
	out->target = c->in.source;
	out->source_port = c->in.target_port ? server->port : 0;
	out->target_port = 0;
	c->server = index;
	c->generation = server->generation;
	c->last_ms = clock->now_ms;
	c->forward = server->forward;
	c->timeout_ms = s->persistent_s * 1000;
	new->hash = tuple_hash(&c->in, config->seed);
	new->state = STATE_TEMPLATE;
	return conn_enter(new) == ADDED ? new->ref : 0;
}

#endif
