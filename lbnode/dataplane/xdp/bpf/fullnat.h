/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Full NAT: both ends of a packet are translated. The server sees a connection from a local address of the gateway, which
 * its answers come back to, whatever routes it has; the client sees one with the VIP.
 */
#ifndef LBNODE_FULLNAT_H
#define LBNODE_FULLNAT_H

#include "nat.h"
#include "toa.h"

/* One end, as memory->rewrite says. */
INLINE int translate_one(void *ctx, const int hook, struct scratch *memory, const int family)
{
	const struct packet *p = &memory->packet;
	const struct rewrite *to = &memory->rewrite;
	if (likely((p->kind == KIND_L4 || p->kind == KIND_FIRST_FRAGMENT) && p->tuple.protocol != IPPROTO_SCTP))
		return translate(ctx, hook, p, to->source, &to->address, to->port, family, 0);
	return translate_end(ctx, hook, memory);
}

INLINE int translate_one4(void *ctx, const int hook, struct scratch *memory)
{
	return translate_one(ctx, hook, memory, 4);
}

INLINE int translate_one6(void *ctx, const int hook, struct scratch *memory)
{
	return translate_one(ctx, hook, memory, 6);
}

RARE(translate_one4)
RARE(translate_one6)

INLINE int translate_in(void *ctx, const int hook, struct scratch *memory)
{
	return memory->packet.family == 6 ? call_translate_one6(ctx, hook, memory)
					  : call_translate_one4(ctx, hook, memory);
}

/* Whether a client could forge TOA in it: it has options, and not only the usual ones. */
INLINE bool may_have_toa(void *ctx, const int hook, const struct packet *p)
{
	if (p->tuple.protocol != IPPROTO_TCP || p->l4_header <= TCP_HEADER ||
	    (p->kind != KIND_L4 && p->kind != KIND_FIRST_FRAGMENT))
		return false;
	return !(p->family == 6 ? usual_options(ctx, hook, p, 6) : usual_options(ctx, hook, p, 4));
}

/* 0, or the event that tells why the packet has to be dropped. First the end that masquerade translates, then the other. */
INLINE int fullnat(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	const struct decision *d = &memory->decision;
	struct rewrite *to = &memory->rewrite;
	bool in = memory->action == ACTION_TO_SERVER, error = p->kind == KIND_ICMP_ERROR;
	if (in) {
		struct server *server = get_server(d->server, d->generation);
		if (!server)
			return EVENT_DROP_SERVER_GONE;
		to->address = server->address;
		to->port = server_port(server, error ? p->quoted.source_port : p->tuple.target_port);
	} else {
		to->address = d->vip;
		to->port = d->vip_port;
	}
	to->delta = error ? d->delta : 0;
	to->source = error == in; /* a packet that is quoted ran against the error */
	if (translate_in(ctx, hook, memory))
		return EVENT_DROP_ERROR;
	to->address = d->other;
	to->port = d->other_port;
	to->delta = 0;
	to->source = !to->source;
	if (translate_in(ctx, hook, memory))
		return EVENT_DROP_ERROR;
	if (p->family == 6 ? decrement_ttl(ctx, hook, 6) : decrement_ttl(ctx, hook, 4))
		return EVENT_DROP_ERROR;
	if (in && may_have_toa(ctx, hook, p) && call_strip_toa(ctx, hook, memory))
		return EVENT_DROP_ERROR;
	if (d->full & FULL_TOA && p->kind == KIND_L4 && call_tell_client(ctx, hook, memory))
		return EVENT_DROP_ERROR;
	return 0;
}

RARE(fullnat)

#endif
