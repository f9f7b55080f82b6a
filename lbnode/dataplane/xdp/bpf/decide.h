/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What shall become of a packet: looks it up, schedules, tracks and counts, and touches no packet. Both hooks share it. */
#ifndef LBNODE_DECIDE_H
#define LBNODE_DECIDE_H

#include "admit.h"
#include "reply_hop.h"

/* What else full NAT translates: to the server the source, to the client the target. */
INLINE void other_end(struct decision *d, struct place *place, bool in)
{
	d->full = FULL_NAT;
	d->other = in ? place_back(place)->out.target : place_conn(place)->in.source;
	d->other_port = in ? place_back(place)->out.target_port : place_conn(place)->in.source_port;
}

/* Of a client's packet; also whether the server is to be told who the client is. */
INLINE void local_end(struct decision *d, struct place *place, const struct packet *p)
{
	other_end(d, place, true);
	if (place_conn(place)->toa && !(p->tcp_flags & TCP_FLAG_RST))
		d->full |= FULL_TOA;
}

/*
 * Servers mostly have lower ports than clients (RFC 6335 section 6), which tells the look-up to try first. No packet is
 * found by both, so that the order changes nothing but the time.
 */
INLINE bool seems_answer(const struct packet *p)
{
	return bpf_ntohs(p->tuple.source_port) < bpf_ntohs(p->tuple.target_port);
}

/* The connection that a packet to a client belongs to. */
INLINE bool find_answered(const struct packet *p, __u64 hash, struct place *place)
{
	await_reply_hop(&p->tuple.target);
	return conn_find_reply(&p->tuple, hash, place);
}

/*
 * A SYN from the ports of a connection that is over (IPVS: conn_reuse_mode 1). What began with a cookie has deltas that no
 * later connection can use.
 */
INLINE bool begins_anew(__u64 word)
{
	__u32 state = word_state(word);
	return state == STATE_TIME_WAIT ||
	       (word_flags(word) & CONN_PROXIED && (state == STATE_CLOSE || state == STATE_LAST_ACK));
}

/* Whether connections were moved (room.h) since there were so many `moves`. */
INLINE bool has_moved(const struct clock *clock, __u32 moves)
{
	return unlikely(*(volatile __u32 *)&clock->moves != moves);
}

/* A connection that was there a moment ago. */
INLINE int vanished(const struct clock *clock, __u32 moves)
{
	return has_moved(clock, moves) ? ACTION_AGAIN : drop_counted(EVENT_DROP_SERVER_GONE);
}

/* TCP, UDP and SCTP. `inspect`: CONFIG_* of what has not been looked at. Returns enum action. */
GLOBAL int decide(const struct packet *p, struct decision *d, __u32 inspect)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	if (!p || !d || !config || !clock)
		return ACTION_PASS;
	if (unlikely(config->flags & inspect))
		return ACTION_INSPECT;
	__u64 hash = tuple_hash(&p->tuple, config->seed);
	__u32 now = clock->now_ms, moves = *(volatile __u32 *)&clock->moves;
	bool syn = is_stateful(p) && p->tcp_flags & TCP_FLAG_SYN;
	struct place place = {};
	bool answered = seems_answer(p) && find_answered(p, hash, &place);
	if (likely(!answered && conn_find(&p->tuple, hash, &place))) {
		struct server *server = get_live_server(place.server, place.generation);
		bool reuse = syn && begins_anew(place.word);
		if (likely(server && !reuse && !conn_expired(config, place_conn(&place), place.word, now))) {
			if (unlikely(!served(server, p)))
				return drop_counted(EVENT_DROP_NO_LEASE);
			d->server = place.server;
			d->generation = place.generation;
			d->full = 0;
			if (unlikely(word_flags(place.word) & CONN_PROXIED)) {
				d->ref = conn_ref(&place, word_generation(place.word));
				return ACTION_FROM_CLIENT;
			}
			__u32 direction = word_flags(place.word) & CONN_NO_OUTPUT ? DIRECTION_IN_ONLY : DIRECTION_IN;
			track(&place, config, server, direction, event_of(p), now);
			account(place.server, server, true, p->length, 0);
			if (unlikely(place_conn(&place)->forward == FORWARD_FULLNAT)) {
				local_end(d, &place, p);
				if (!place_unchanged(&place))
					return vanished(clock, moves);
			}
			return ACTION_TO_SERVER;
		}
		conn_remove(&place);
		if (!server && is_stateful(p) && !syn)
			return drop_counted(EVENT_DROP_SERVER_GONE);
	} else if (answered || find_answered(p, hash, &place)) {
		struct server *server = get_live_server(place.server, place.generation);
		struct conn *c = place_conn(&place);
		if (likely(server && !conn_expired(config, c, place.word, now))) {
			d->vip = c->in.target;
			d->vip_port = c->in.target_port;
			d->server = place.server;
			d->generation = place.generation;
			d->full = 0;
			if (unlikely(c->forward == FORWARD_FULLNAT)) {
				other_end(d, &place, false);
				if (c->toa && !syn)
					c->toa = 0;
			}
			if (!place_unchanged(&place))
				return vanished(clock, moves);
			if (unlikely(word_flags(place.word) & CONN_PROXIED)) {
				d->ref = conn_ref(&place, word_generation(place.word));
				return ACTION_FROM_SERVER;
			}
			track(&place, config, server, DIRECTION_OUT, event_of(p), now);
			account(place.server, server, false, p->length, 0);
			return ACTION_TO_CLIENT;
		}
		conn_remove(&place);
		if (!server)
			return drop_counted(EVENT_DROP_SERVER_GONE);
	}
	d->hash = hash;
	return has_moved(clock, moves) ? ACTION_AGAIN : ACTION_ADMIT;
}

/* Another CPU has just entered the packet's connection. Returns enum action. */
INLINE int decide_again(struct scratch *memory)
{
	int action = decide(&memory->packet, &memory->decision, 0);
	if (action == ACTION_ADMIT || action == ACTION_AGAIN)
		return drop_counted(EVENT_DROP_TABLE_FULL);
	return action >= ACTION_ANSWER_SYN ? drop_counted(EVENT_DROP_NOT_OPEN) : action;
}

/*
 * An ICMP error about a packet of a connection. It quotes the packet, which ran the other way: one that quotes a reply
 * goes to the server, one that quotes what a masqueraded server got goes to the client.
 */
GLOBAL int decide_error(const struct packet *p, struct decision *d)
{
	struct config *config = get_config();
	if (!p || !d || !config)
		return ACTION_PASS;
	if (!addr_equal(&p->tuple.target, &p->quoted.source))
		return ACTION_PASS; /* errors go to the sender of what they quote (RFC 792): this one is another host's */
	struct tuple turned;
	struct place place = {};
	tuple_reverse(&turned, &p->quoted);
	__u64 hash = tuple_hash(&turned, config->seed);
	d->delta = 0;
	if (conn_find(&turned, hash, &place)) {
		if (!get_live_server(place.server, place.generation))
			return ACTION_PASS;
		if (unlikely(word_flags(place.word) & CONN_PROXIED) && word_state(place.word) != STATE_SYNACK)
			d->delta = *place_delta(&place);
		d->server = place.server;
		d->generation = place.generation;
		d->full = 0;
		if (place_conn(&place)->forward == FORWARD_FULLNAT)
			other_end(d, &place, true);
		return place_unchanged(&place) ? ACTION_TO_SERVER : ACTION_PASS;
	}
	if (!conn_find_reply(&turned, hash, &place))
		return ACTION_PASS;
	d->server = place.server;
	d->generation = place.generation;
	d->vip = place_conn(&place)->in.target;
	d->vip_port = place_conn(&place)->in.target_port;
	d->full = 0;
	if (place_conn(&place)->forward == FORWARD_FULLNAT)
		other_end(d, &place, false);
	return place_unchanged(&place) ? ACTION_TO_CLIENT : ACTION_PASS;
}

#endif
