/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet without an entry: is it the beginning of a connection to a service, and which server gets it? */
#ifndef LBNODE_ADMIT_H
#define LBNODE_ADMIT_H

#include "cookie.h"
#include "access.h"
#include "admission.h"
#include "hook.h"
#include "local_port.h"
#include "persist.h"
#include "sched.h"
#include "track.h"

enum action {
	ACTION_PASS,	  /* not ours: the network stack goes on with it */
	ACTION_DROP,	  /* counted already */
	ACTION_REFUSE,	  /* dropped and counted; the client shall hear that nobody serves it */
	ACTION_TO_SERVER, /* `server`, `generation` */
	ACTION_TO_CLIENT, /* `vip`, `vip_port`; the server that it comes from */
	ACTION_TTL,	  /* dropped and counted; the client shall hear that its time to live ran out */
	ACTION_ADMIT,	  /* `hash`: there is no entry; admit() decides */
	ACTION_INSPECT,	  /* inspect() has to see the packet first */
	/* decide() has to look again: connections were moved meanwhile, or another CPU has just entered its own */
	ACTION_AGAIN,
	ACTION_REFLECT, /* the packet has become the answer to its sender */
	/* syn_proxy.h decides: */
	ACTION_ANSWER_SYN,   /* with a cookie */
	ACTION_CHECK_COOKIE, /* `hash`: an ACK without entry */
	ACTION_FROM_CLIENT,  /* `server`, `generation`, `ref`: of a connection that began with a cookie */
	ACTION_FROM_SERVER,  /* ... `vip`, `vip_port` */
};

struct decision {
	__u32 server;
	__u32 generation;
	struct addr vip;
	__be16 vip_port;
	__be16 other_port;
	__u32 delta; /* of an ICMP error: how far the sequence number that it quotes is from its target's own */
	__u32 full;  /* FULL_* */
	__u32 reserved;
	__u64 hash; /* of the packet's tuple */
	__u64 ref;  /* of the entry, as in back.control */
	/* full NAT: to the server, what the source becomes (local); to the client, the target (client) */
	struct addr other;
};

#define FULL_NAT 1 /* `other`, `other_port` */
#define FULL_TOA 2 /* and the server is to be told who the client is */

/* To the sender of a packet that cannot go on: an ICMP error. */
struct answer {
	struct addr from;
	__u32 reason; /* enum reason */
	__u32 mtu;    /* REASON_TOO_BIG */
};

enum reason { REASON_NONE, REASON_TTL, REASON_TOO_BIG, REASON_NO_SERVER, REASON_NO_ROUTE };

/* Network address translation of one end. */
struct rewrite {
	struct addr address;
	__be16 port;
	__u16 source; /* not 0: of the source, else of the target */
	__u32 delta;  /* of a quoted sequence number */
};

/* A sum over bytes of the frame, while it is made. */
struct sum {
	__u64 sum;
	__u32 at, left;
};

/*
 * Working memory of the packet that this CPU is busy with (its stack is too small). Both hooks run with bottom halves
 * off, so there is one packet at a time; programs that user space runs do not use it.
 */
struct scratch {
	struct lease_clock clock;
	__u32 vlan;    /* XDP: tag that is due when the packet is done with, VLAN_PRESENT; 0 = none */
	__u32 lower;   /* XDP: ifindex that it is sent by with this tag; 0 = what `verdict` says */
	__u32 verdict; /* XDP: of a packet with a tag */
	__u32 reserved;
	struct packet packet;
	struct decision decision;
	__u32 action; /* enum action: what `decision` is about */
	struct hop hop;
	struct answer answer;
	struct rewrite rewrite;
	struct sum sum;
	struct bpf_fib_lookup route;
	struct walk walk;
	struct new_conn new;
	struct syn_proxy proxy;
	struct port_search ports;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

INLINE struct scratch *get_scratch(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&scratch, &zero);
}

INLINE bool is_vip(const struct addr *address)
{
	struct addr key = *address; /* Linux 6.1 takes a key from the stack, a map or the packet alone */
	return bpf_map_lookup_elem(&vips, &key) != NULL;
}

/* Packets of a connection: its server knows the lease of its service's address. */
INLINE bool served(const struct server *server, const struct packet *p)
{
	if (unlikely(server->lease == LEASE_OF_TARGET))
		return !is_dark(&p->tuple.target, p->now);
	return lease_runs(server->lease, p->now);
}

/* TCP and SCTP, whose connections have a beginning; UDP's begin with any packet. */
INLINE bool is_stateful(const struct packet *p)
{
	return p->tuple.protocol != IPPROTO_UDP;
}

INLINE __u32 event_of(const struct packet *p)
{
	return is_stateful(p) ? tcp_event_of(p->tcp_flags) : TCP_NOTHING;
}

INLINE int drop_counted(__u32 event)
{
	count(event);
	return ACTION_DROP;
}

INLINE int drop_for(const struct service *service, __u32 event)
{
	count_for(service->index, event);
	return ACTION_DROP;
}

INLINE int refuse_for(const struct service *service, __u32 event)
{
	count_for(service->index, event);
	return ACTION_REFUSE;
}

/*
 * Enter a new connection into the table; one that began with a cookie waits for its server (IPVS's word: SYNACK). Returns
 * enum added.
 */
INLINE int enter(struct scratch *memory, const struct service *service, const struct server *server, __u32 index,
		 __u32 now, __u64 control, const bool proxied)
{
	bool translated = is_translated(server->forward);
	const struct packet *p = &memory->packet;
	struct new_conn *new = &memory->new;
	struct conn *c = &new->conn;
	struct tuple *out = &new->back.out;
	__builtin_memset(new, 0, sizeof(*new));
	new->hash = memory->decision.hash;
	c->in = p->tuple;
	tuple_reverse(out, &p->tuple);
	out->source = server->address;
	if (translated)
		out->source_port = server_port(server, p->tuple.target_port);
	c->server = index;
	c->generation = server->generation;
	c->last_ms = now;
	c->forward = server->forward;
	new->back.control = control;
	new->state = STATE_UDP;
	if (is_stateful(p))
		new->state = tcp_next(translated ? DIRECTION_IN : DIRECTION_IN_ONLY, event_of(p), STATE_NONE);
	if (new->state == STATE_NONE)
		new->state = STATE_CLOSE;
	new->flags = (translated ? 0 : CONN_NO_OUTPUT) | (state_active(new->state) ? 0 : CONN_INACTIVE);
	if (proxied) {
		new->state = STATE_SYNACK;
		new->flags = CONN_PROXIED | CONN_ASSURED;
		c->delta = memory->proxy.cookie;
		c->scale_in = memory->proxy.options.scale;
	} else if (unlikely(service->flags & SERVICE_SYN_PROXY) && new->state == STATE_SYN_RECV) {
		new->flags |= CONN_HALF_OPEN;
	}
	if (unlikely(server->forward == FORWARD_FULLNAT && !(server->flags & SERVER_LOCAL))) {
		c->toa = server->flags & SERVER_TOA && p->tuple.protocol == IPPROTO_TCP;
		int added = conn_add_local(new, &memory->ports, server->pool);
		if (unlikely(added == ADDED_NEEDS_MOVE)) {
			move_one(new);
			added = conn_add_local(new, &memory->ports, server->pool);
		}
		return added;
	}
	return conn_enter(new);
}

/* The entry was lost, or there never was one: its hash leads the packet to the same server again. */
INLINE bool found_again(const struct service *service)
{
	return hash_scheduler(service) && !service->persistent_s;
}

/* Whether a packet without entry may begin a connection. */
INLINE bool may_begin(const struct packet *p, const struct service *service)
{
	return !is_stateful(p) ||
	       !(p->tcp_flags & TCP_FLAG_RST || !(p->tcp_flags & TCP_FLAG_SYN || found_again(service)));
}

/* The network stack answers with RST. */
INLINE int no_connection(void)
{
	count(EVENT_NO_CONNECTION);
	return ACTION_PASS;
}

/* ip_vs_schedule, ip_vs_sched_persist: the server, or NO_SERVER. *control: as in struct back, 0 if persistence failed. */
INLINE __u32 choose(struct scratch *memory, struct service *service, __u64 *control)
{
	const struct packet *p = &memory->packet;
	if (likely(!service->persistent_s))
		return schedule(service, &p->tuple, &memory->walk);
	__u32 index = NO_SERVER;
	*control = template_of(service, &p->tuple, p->mark);
	if (*control)
		index = template_use(*control);
	if (index != NO_SERVER)
		return index;
	index = schedule(service, &p->tuple, &memory->walk);
	if (unlikely(p->ttl <= 1)) /* which goes no further: see admit() */
		return index;
	*control = template_add(&memory->new, service, &p->tuple, p->mark, index);
	if (likely(*control))
		return index;
	*control = template_of(service, &p->tuple, p->mark); /* another CPU may have entered it */
	return *control ? template_use(*control) : index;
}

/*
 * Find a server for a new connection and enter it into the table. `proxied`: its client has shown a valid cookie
 * (memory->proxy). Returns enum action.
 */
INLINE int assign(struct scratch *memory, struct service *service, __u32 now, const bool proxied)
{
	const struct packet *p = &memory->packet;
	struct decision *d = &memory->decision;
	__u64 control = 0;
	__u32 index = choose(memory, service, &control);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	if (!server || !server->generation)
		return refuse_for(service, why_no_server(service, &memory->walk));
	if (unlikely(p->ttl <= 1 && !(server->flags & SERVER_LOCAL))) {
		count(EVENT_DROP_TTL);
		return ACTION_TTL;
	}
	if (service->persistent_s && !control)
		return drop_for(service, EVENT_DROP_TABLE_FULL);
	if (proxied && (!is_translated(server->forward) || server->flags & SERVER_LOCAL))
		return drop_counted(EVENT_DROP_ERROR); /* its answer would not pass here */
	bool full = server->forward == FORWARD_FULLNAT && !(server->flags & SERVER_LOCAL);
	if (unlikely(full && !proxied && is_stateful(p) && !(p->tcp_flags & TCP_FLAG_SYN)))
		return no_connection(); /* the server would not know it by another local port */
	bool one_packet = service->flags & SERVICE_ONE_PACKET && !is_stateful(p) && !full;
	int added = one_packet ? ADDED : enter(memory, service, server, index, now, control, proxied);
	if (unlikely(added != ADDED)) {
		if (added == ADDED_ALREADY)
			return ACTION_AGAIN;
		if (added == ADDED_NO_PORT)
			return refuse_for(service, EVENT_DROP_NO_LOCAL_PORT);
		if (!found_again(service) || is_translated(server->forward))
			return drop_for(service, EVENT_DROP_TABLE_FULL);
		count(EVENT_UNTRACKED);
	}
	d->full = 0;
	if (unlikely(full)) {
		d->full = FULL_NAT | (memory->new.conn.toa ? FULL_TOA : 0);
		d->other = memory->new.back.out.target;
		d->other_port = memory->new.back.out.target_port;
	}
	account(index, server, true, p->length, 1);
	d->server = index;
	d->generation = server->generation;
	return ACTION_TO_SERVER;
}

/* What to do first with a TCP segment to a service that is defended against SYN floods; ACTION_ADMIT: nothing. */
INLINE int defend(const struct packet *p, const struct service *service, __u32 now)
{
	__u8 flags = p->tcp_flags & (TCP_FLAG_FIN | TCP_FLAG_SYN | TCP_FLAG_RST | TCP_FLAG_ACK);
	struct half_open *h = get_half_open(service->index);
	if (!h || p->tuple.protocol != IPPROTO_TCP)
		return ACTION_ADMIT;
	bool flooded = h->entries >= (__s32)service->syn_proxy;
	if (flags == TCP_FLAG_SYN)
		return flooded ? ACTION_ANSWER_SYN : ACTION_ADMIT;
	if (flooded && flags & TCP_FLAG_SYN)
		return no_connection(); /* SYN-ACK: opens nothing (RFC 9293 3.10.7.2), but IPVS would make an entry */
	if (flags & TCP_FLAG_ACK && !(flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) && h->cookie_ms &&
	    now - h->cookie_ms < COOKIE_LIFE_MS)
		return ACTION_CHECK_COOKIE;
	return ACTION_ADMIT;
}

/*
 * TCP begins with SYN, SCTP with INIT. Hash schedulers also take other segments (not RST): the hash leads them to the
 * server that they belong to, if the entry was lost. Returns enum action.
 */
GLOBAL int admit(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_PASS;
	const struct packet *p = &memory->packet;
	struct service *service = find_service(&p->tuple, p->family, p->mark);
	if (is_dark(&p->tuple.target, p->now))
		return drop_counted(EVENT_DROP_NO_LEASE);
	if (!service)
		return ACTION_PASS;
	if (unlikely(addr_equal(&p->tuple.source, &p->tuple.target)))
		return drop_counted(EVENT_DROP_LAND);
	if (unlikely(service->flags & (SERVICE_LISTS | SERVICE_RATE))) {
		int why_not = refused(service, &p->tuple.source, clock->now_ms,
				      !is_stateful(p) || p->tcp_flags & TCP_FLAG_SYN);
		if (why_not)
			return drop_for(service, why_not);
	}
	if (unlikely(service->flags & SERVICE_SYN_PROXY)) {
		int first = defend(p, service, clock->now_ms);
		if (first != ACTION_ADMIT)
			return first;
	}
	if (!may_begin(p, service))
		return no_connection();
	return assign(memory, service, clock->now_ms, false);
}

#endif
