/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments (RFC 791, RFC 8200 4.5). Only the first one has ports: it is balanced as a whole packet is, and the others
 * follow it. One that overtakes the first is left to the network stack, and its datagram is lost. The memory evicts by
 * least recent use, so that a flood of first fragments costs others at most their fragments.
 */
#ifndef LBNODE_FRAGMENT_H
#define LBNODE_FRAGMENT_H

#include "decide.h"

#define FRAGMENT_LIFE_MS 30000 /* as net.ipv4.ipfrag_time: by then the receiver has given up */

struct fragment_key {
	struct addr source;
	struct addr target;
	__u32 id;
	__u8 protocol; /* IPv6: 0, identifications are apart there without it */
	__u8 reserved[3];
};

struct fragment {
	struct decision decision;
	__u32 action; /* enum action */
	__u32 seen_ms;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

INLINE struct fragment_key fragment_key(const struct packet *p)
{
	struct fragment_key key = {.source = p->tuple.source, .target = p->tuple.target, .id = p->fragment_id};
	key.protocol = p->family == 4 ? p->tuple.protocol : 0;
	return key;
}

/* A first fragment was decided about. */
GLOBAL int remember_fragment(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return 0;
	struct fragment_key key = fragment_key(&memory->packet);
	if (memory->action != ACTION_TO_SERVER && memory->action != ACTION_TO_CLIENT)
		return bpf_map_delete_elem(&fragments, &key); /* the identification is used anew */
	struct fragment value = {.decision = memory->decision, .action = memory->action, .seen_ms = clock->now_ms};
	return bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* What was decided about the first fragment; memory->decision is filled. Returns enum action. */
GLOBAL int recall_fragment(struct scratch *memory)
{
	struct clock *clock = get_clock();
	if (!memory || !clock)
		return ACTION_PASS;
	const struct packet *p = &memory->packet;
	struct fragment_key key = fragment_key(p);
	struct fragment *first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || clock->now_ms - first->seen_ms > FRAGMENT_LIFE_MS) {
		if (is_vip(&p->tuple.target))
			count(EVENT_FRAGMENT);
		return ACTION_PASS;
	}
	memory->decision = first->decision;
	struct server *server = get_live_server(memory->decision.server, memory->decision.generation);
	if (!server)
		return drop_counted(EVENT_DROP_SERVER_GONE);
	account(memory->decision.server, server, first->action == ACTION_TO_SERVER, p->length, 0);
	return first->action;
}

#endif
