/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP openings while a service is under a SYN flood (RFC 4987), as netfilter's SYNPROXY does it, with one packet out for every
 * packet in:
 *
 *   client            gateway           server
 *     | -- SYN ---------> |                |     no entry is made
 *     | <- SYN-ACK ------ |                |     its sequence number is a cookie; window 0: nothing to send yet
 *     | -- ACK ---------> | -- SYN ------> |     the cookie is valid: a server is chosen, an entry made (SYNACK)
 *     | <- probe -------- | <- SYN-ACK --- |     the server's first sequence number, and so the delta, is known
 *     | -- ACK, data ---> | -- ACK ------> |     from here on: numbers, SACK blocks and windows translated
 *
 * The probe is a keep-alive with one byte (RFC 9293 3.8.4): old, so it is thrown away, but it opens the window and is answered at
 * once, which completes the server's opening, too. Whatever is lost is asked for again: the client's window probes
 * become SYNs as its first ACK did, and the server sends its SYN-ACK again. So does a client go on for
 * which full NAT had no local port.
 */
#ifndef LBNODE_SYN_PROXY_H
#define LBNODE_SYN_PROXY_H

#include "clamp.h"

#define TCP_FLAGS_SYNACK (TCP_FLAG_SYN | TCP_FLAG_ACK)

INLINE __u32 scaled(__u32 window, __u32 left, __u32 right)
{
	__u32 bytes = window << (left & 15) >> (right & 15);
	return bytes > 0xffff ? 0xffff : bytes;
}

/* --- without an entry ---------------------------------------------------------------------------------------------- */

/* memory->proxy: the client's SYN becomes the SYN-ACK. */
GLOBAL int cookie_answer(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_DROP;
	const struct packet *p = &memory->packet;
	struct service *service = find_service(&p->tuple, p->family, p->mark);
	struct half_open *h = service ? get_half_open(service->index) : NULL;
	struct syn_proxy *x = &memory->proxy;
	__u32 now = clock->now_ms;
	if (!h)
		return ACTION_DROP;
	if (h->cookie_ms != now)
		h->cookie_ms = now ? now : 1;
	__u32 cookie = cookie_make(&p->tuple, x->seq, &x->options, p->family, now);
	set_segment(&x->tcp, cookie, x->seq + 1, TCP_FLAGS_SYNACK, 0);
	set_options(&x->tcp, clamped(cookie_mss(p->family, 3), service->mss),
		    x->options.scale == NO_SCALE ? NO_SCALE : COOKIE_SCALE, x->options.sack_permitted);
	x->tcp.source = p->tuple.target_port;
	x->tcp.dest = p->tuple.source_port;
	x->rewrite = REWRITE_ANSWER;
	count_for(service->index, EVENT_COOKIE_SENT);
	return ACTION_REFLECT;
}

/* The client's ACK, or a later one, becomes the SYN that its server gets. x->isn, x->cookie are valid. */
INLINE void make_syn(struct syn_proxy *x, int family, __u32 limit)
{
	__u8 scale = cookie_scale(x->cookie);
	set_segment(&x->tcp, x->isn, 0, TCP_FLAG_SYN, scaled(x->window, scale == NO_SCALE ? 0 : scale, 0));
	set_options(&x->tcp, clamped(cookie_mss(family, x->cookie >> 6 & 3), limit), scale, cookie_sack(x->cookie));
	x->rewrite = REWRITE_SEGMENT;
}

/* Whether a segment belongs to x->cookie; x->isn: what its client began with. Window probes and keep-alives have the number
   before the next one. */
INLINE bool fits_cookie(struct syn_proxy *x, const struct packet *p, __u32 now)
{
	x->isn = x->seq - 1;
	if (cookie_valid(&p->tuple, x->isn, x->cookie, now))
		return true;
	x->isn = x->seq;
	return cookie_valid(&p->tuple, x->isn, x->cookie, now);
}

/* An ACK that no entry is known for. */
GLOBAL int cookie_admit(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_DROP;
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	struct service *service = find_service(&p->tuple, p->family, p->mark);
	if (!service)
		return ACTION_PASS;
	x->cookie = x->ack - 1;
	bool valid = is_plain(p) && fits_cookie(x, p, clock->now_ms);
	count_for(service->index, valid ? EVENT_COOKIE_ACCEPTED : EVENT_COOKIE_REFUSED);
	if (!valid && !found_again(service))
		return no_connection();
	x->options.scale = cookie_scale(x->cookie);
	if (valid)
		make_syn(x, p->family, service->mss);
	return assign(memory, service, clock->now_ms, valid);
}

/* --- with an entry ------------------------------------------------------------------------------------------------- */

INLINE int not_open(void)
{
	return drop_counted(EVENT_DROP_NOT_OPEN);
}

/* A function of its own for the verifier's sake, which would follow it from every place where it is called. */
GLOBAL int proxy_track(__u64 ref, __u32 direction, __u32 event)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct place place = {};
	if (!config || !clock || !conn_at(ref, &place))
		return 0;
	struct server *server = get_live_server(place.server, place.generation);
	if (server)
		track(&place, config, server, direction, event, clock->now_ms);
	return 0;
}

/* The packet's entry, which has got this packet; NULL: it or its server is gone. */
INLINE struct conn *proxied_entry(struct scratch *memory, struct place *place, bool in)
{
	struct decision *d = &memory->decision;
	struct server *server = get_live_server(d->server, d->generation);
	bool found = server && conn_at(d->ref, place);
	if (found && in && place_conn(place)->forward == FORWARD_FULLNAT) {
		local_end(d, place, &memory->packet);
		found = place_unchanged(place);
	}
	if (!found) {
		count(EVENT_DROP_SERVER_GONE);
		return NULL;
	}
	account(d->server, server, in, memory->packet.length, 0);
	return place_conn(place);
}

/* The server has not answered yet. All that the client may say is its ACK again, or that it gives up. */
INLINE int repeat_syn(struct scratch *memory, struct place *place, __u32 now)
{
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	x->cookie = *place_delta(place);
	if (!fits_cookie(x, p, now))
		return not_open();
	if (p->tcp_flags & TCP_FLAG_RST) {
		conn_remove(place);
		return not_open();
	}
	if (p->tcp_flags & TCP_FLAG_SYN || x->ack != x->cookie + 1)
		return not_open();
	struct server *server = get_server(memory->decision.server, memory->decision.generation);
	make_syn(x, p->family, server ? server->mss : 0);
	return ACTION_TO_SERVER;
}

GLOBAL int proxy_from_client(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_DROP;
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	struct place place = {};
	struct conn *c = proxied_entry(memory, &place, true);
	if (!c)
		return ACTION_DROP;
	bool syn = p->tcp_flags & TCP_FLAG_SYN;
	int action = ACTION_TO_SERVER;
	__u32 event = syn ? TCP_NOTHING : event_of(p);
	if (word_state(place.word) == STATE_SYNACK) {
		action = repeat_syn(memory, &place, clock->now_ms);
		if (action == ACTION_DROP)
			return action;
		event = TCP_NOTHING;
	} else {
		__u32 delta = *place_delta(&place);
		x->rewrite = REWRITE_NUMBERS;
		if (p->tcp_flags & TCP_FLAG_ACK)
			x->tcp.ack = bpf_htonl(x->ack - delta);
		if (!syn)
			x->tcp.window = bpf_htons(scaled(x->window, c->scale_in, 0));
		if (x->options.sack_at)
			sack_shift(&x->options, delta);
	}
	proxy_track(memory->decision.ref, DIRECTION_IN, event);
	return action;
}

/* The server's SYN-ACK: from now on its numbers are known. It has acknowledged the client's, so the cookie must fit them. */
INLINE bool server_opens(struct syn_proxy *x, struct place *place, struct conn *c, __u32 now)
{
	struct tuple in = c->in;
	__u32 cookie = *(volatile __u32 *)place_delta(place);
	if (!cookie_valid(&in, x->ack - 1, cookie, now))
		return false; /* also if another CPU has just put the delta in its place */
	__u8 client = c->scale_in, own = x->options.scale;
	bool scales = client != NO_SCALE;
	c->scale_in = scales && own == NO_SCALE ? client : 0;
	c->scale_out = scales ? (own == NO_SCALE ? 0 : own << 4) | COOKIE_SCALE : 0;
	*place_delta(place) = cookie - x->seq;
	return true;
}

GLOBAL int proxy_from_server(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_DROP;
	const struct packet *p = &memory->packet;
	struct syn_proxy *x = &memory->proxy;
	struct place place = {};
	struct conn *c = proxied_entry(memory, &place, false);
	if (!c)
		return ACTION_DROP;
	bool waits = word_state(place.word) == STATE_SYNACK;
	__u8 flags = p->tcp_flags & (TCP_FLAGS_SYNACK | TCP_FLAG_RST);
	x->rewrite = REWRITE_NUMBERS;
	if (waits && flags == (TCP_FLAG_RST | TCP_FLAG_ACK)) {
		struct tuple in = c->in;
		__u32 cookie = *place_delta(&place);
		if (!cookie_valid(&in, x->ack - 1, cookie, clock->now_ms))
			return not_open();
		x->tcp.seq = bpf_htonl(cookie + 1); /* the only one that the client takes (RFC 5961 3.2) */
	} else if (waits && (flags != TCP_FLAGS_SYNACK || !server_opens(x, &place, c, clock->now_ms))) {
		return not_open();
	} else {
		__u32 seq = x->seq + *place_delta(&place), right = c->scale_out & 15;
		if (flags == TCP_FLAGS_SYNACK) {
			x->rewrite = REWRITE_SEGMENT;
			set_segment(&x->tcp, seq, x->ack, TCP_FLAG_ACK, scaled(x->window, 0, right));
			x->tcp.option[0] = x->tcp.option[1] = x->tcp.option[2] = 0x01010101;
			x->data = 1;
		} else {
			x->tcp.seq = bpf_htonl(seq);
			x->tcp.window = bpf_htons(scaled(x->window, c->scale_out >> 4, right));
		}
	}
	proxy_track(memory->decision.ref, DIRECTION_OUT, event_of(p));
	return ACTION_TO_CLIENT;
}

INLINE int proxy_decide(struct scratch *memory)
{
	switch (memory->action) {
	case ACTION_ANSWER_SYN:
		return cookie_answer(memory);
	case ACTION_CHECK_COOKIE:
		return cookie_admit(memory);
	case ACTION_FROM_CLIENT:
		return proxy_from_client(memory);
	default:
		return proxy_from_server(memory);
	}
}

/* Returns enum action: where the packet, changed as it must be, goes on. */
INLINE int syn_proxy(void *ctx, const int hook, struct scratch *memory)
{
	if (call_read_segment(ctx, hook, memory))
		return drop_counted(EVENT_DROP_ERROR);
	__u32 action = proxy_decide(memory);
	bool goes_on = action == ACTION_TO_SERVER || action == ACTION_TO_CLIENT || action == ACTION_REFLECT;
	if (goes_on && memory->proxy.rewrite && call_rewrite_segment(ctx, hook, memory))
		return drop_counted(EVENT_DROP_ERROR);
	return action;
}

#endif
