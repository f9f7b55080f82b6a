/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Schedulers: IPVS's algorithms (net/netfilter/ipvs/ip_vs_{rr,wrr,wlc,sh,mh}.c), so that on one CPU the sequence of
 * servers is the same. Several CPUs share the cursor by compare-and-swap; after a lost race the choice stands and the
 * sequence may repeat one server.
 */
#ifndef LBNODE_SCHED_H
#define LBNODE_SCHED_H

#include "maps.h"

#define NO_SERVER SLOT_EMPTY
#define CURSOR_TRIES 3

/* Index of a server that may get a new connection, with its weight in *weight; false if the server may not. */
INLINE bool available(__u32 index, __u32 *weight)
{
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, &index);
	if (!server || !gauge || !server->generation || gauge->overloaded)
		return false;
	*weight = server->weight;
	return server->weight > 0;
}

/*
 * State of a walk over a service's list. Not on the stack: Linux 6.1 verifies a callback of bpf_loop for its first round
 * only, and cuts off branches that the values of that round do not take. Of memory outside the stack it knows nothing.
 */
struct walk {
	__u32 list, len;
	__u32 at;     /* wrr, rr: position looked at next */
	__u32 steps;  /* wrr: left until the end of this pass over the list */
	__u32 cw, gcd, max;
	__u32 below;  /* wrr: largest weight under cw that this pass saw */
	__u32 whole;  /* wrr: this pass began at the head */
	__u32 wraps;
	__u32 chosen; /* index of the server, or NO_SERVER */
	__u32 weight; /* wlc: of the one chosen so far */
	__u32 lost;   /* wrr, rr: another CPU moved the cursor meanwhile */
	__u64 overhead;
};

/* rr: the next available one after the last choice; the last choice itself comes last. */
static long rr_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 key = w->list + w->at, weight;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (available(*index, &weight)) {
		w->chosen = *index;
		return 1;
	}
	if (++w->at >= w->len)
		w->at = 0;
	return 0;
}

/*
 * wrr: passes over the list with a current weight that falls by the gcd; a server is due if its weight reaches it. A
 * whole pass that found nobody may let the current weight fall at once to what somebody reaches: the same choice as
 * falling step by step.
 */
static long wrr_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	if (!w->steps) {
		__u32 next = w->whole ? (w->below ? w->below - w->gcd + 1 : 0) : (w->cw > w->gcd ? w->cw - w->gcd : 0);
		if (!next) {
			if (w->wraps++)
				return 1;
			next = w->max;
		}
		w->cw = next;
		w->below = 0;
		w->whole = 1;
		w->at = 0;
		w->steps = w->len;
	}
	__u32 key = w->list + w->at, weight;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (available(*index, &weight)) {
		if (weight >= w->cw) {
			w->chosen = *index;
			return 1;
		}
		if (weight > w->below)
			w->below = weight;
	}
	w->at++;
	w->steps--;
	return 0;
}

/* wlc: least (active * 256 + inactive) / weight; the first one wins a tie. */
static long wlc_step(__u32 i, struct walk **walk)
{
	struct walk *w = *walk;
	__u32 key = w->list + i, weight;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (!available(*index, &weight))
		return 0;
	struct gauge *gauge = bpf_map_lookup_elem(&gauges, index);
	if (!gauge)
		return 0;
	__s64 load = (__s64)gauge->active * 256 + gauge->inactive;
	__u64 overhead = load > 0 ? load : 0;
	if (w->chosen == NO_SERVER || w->overhead * weight > overhead * w->weight) {
		w->chosen = *index;
		w->overhead = overhead;
		w->weight = weight;
	}
	return 0;
}

/* One try; *w says whether another CPU moved the cursor meanwhile. */
GLOBAL int choose_by_cursor(struct service *s, struct walk *w)
{
	if (!s || !w)
		return NO_SERVER;
	__u32 index = s->index, len = s->list_len & 0xffff;
	__u64 *cursor = bpf_map_lookup_elem(&cursors, &index);
	__builtin_memset(w, 0, sizeof(*w));
	if (!cursor || !len)
		return NO_SERVER;
	__u64 old = *(volatile __u64 *)cursor;
	__u32 at = old & 0xffff;
	w->list = s->list;
	w->len = len;
	w->chosen = NO_SERVER;
	if (s->scheduler == SCHED_RR) {
		if ((__u32)(old >> 32) != s->epoch)
			at = s->start;
		w->at = at + 1 < len ? at + 1 : 0;
		bpf_loop(len, rr_step, &w, 0);
	} else {
		w->cw = old >> 16 & 0xffff;
		w->max = s->max_weight;
		w->gcd = s->weight_gcd ? s->weight_gcd : 1;
		if (!w->max)
			return NO_SERVER;
		if ((__u32)(old >> 32) != s->epoch) {
			at = len; /* as IPVS: from the head again */
			w->cw = s->start;
		}
		if (!w->cw || w->cw > w->max)
			w->cw = w->max;
		w->whole = at >= len;
		w->at = w->whole ? 0 : at + 1;
		w->steps = len - w->at;
		bpf_loop(5 * len + 5, wrr_step, &w, 0);
	}
	if (w->chosen == NO_SERVER)
		return NO_SERVER;
	__u64 new = (__u64)s->epoch << 32 | (__u64)(w->cw & 0xffff) << 16 | (w->at & 0xffff);
	w->lost = __sync_val_compare_and_swap(cursor, old, new) != old;
	return w->chosen;
}

INLINE __u32 schedule_cursor(struct service *s, struct walk *w)
{
	__u32 chosen = NO_SERVER;
#pragma unroll
	for (int try = 0; try < CURSOR_TRIES; try++) {
		chosen = choose_by_cursor(s, w);
		if (!w->lost)
			break;
	}
	return chosen;
}

INLINE __u32 schedule_wlc(struct service *s, struct walk *w)
{
	w->list = s->list;
	w->len = s->list_len & 0xffff;
	w->chosen = NO_SERVER;
	bpf_loop(w->len, wlc_step, &w, 0);
	return w->chosen;
}

/* SipHash-1-3 (Aumasson, Bernstein) of one 32-bit word, as the kernel's hsiphash_1u32 on 64-bit machines. */
INLINE __u64 rotate(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

#define SIPROUND                                                                                                       \
	do {                                                                                                           \
		v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);                                               \
		v2 += v3, v3 = rotate(v3, 16) ^ v2;                                                                    \
		v0 += v3, v3 = rotate(v3, 21) ^ v0;                                                                    \
		v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);                                               \
	} while (0)

INLINE __u32 siphash13(__u32 word, __u64 key)
{
	__u64 v0 = 0x736f6d6570736575ULL ^ key, v1 = 0x646f72616e646f6dULL ^ key;
	__u64 v2 = 0x6c7967656e657261ULL ^ key, v3 = 0x7465646279746573ULL ^ key;
	__u64 b = 4ULL << 56 | word;
	v3 ^= b;
	SIPROUND;
	v0 ^= b;
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return (__u32)(v0 ^ v1 ^ v2 ^ v3);
}

#define MH_KEY 2654435761UL /* IPVS's first key: both halves of the SipHash key */

/* Slot of the table for a client; `offset` differs for the fallback. ip_vs_sh_hashkey, ip_vs_mh_hashkey. */
INLINE __u32 hash_slot(const struct service *s, __u32 client, __u32 offset)
{
	if (s->scheduler == SCHED_SH)
		return (offset + (client * 0x61c88647U >> 24)) & 255;
	return s->table_len ? siphash13(client + offset, MH_KEY) % s->table_len : 0;
}

struct fallback {
	struct service *service;
	__u32 client, first;
	__u32 chosen;
};

static long fallback_step(__u32 i, struct fallback *f)
{
	struct service *s = f->service;
	__u32 offset = s->table_len ? (i + f->first) % s->table_len : 0, weight;
	__u32 key = s->table + hash_slot(s, f->client, offset);
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (*index == SLOT_EMPTY || !available(*index, &weight))
		return 0;
	f->chosen = *index;
	return 1;
}

INLINE __u32 schedule_hash(struct service *s, const struct tuple *t)
{
	if (!s->table_len)
		return NO_SERVER;
	__u32 client = bpf_ntohl(t->source.word[3]), weight;
	if (t->source.half[0] || t->source.word[2] != bpf_htonl(0xffff))
		client = bpf_ntohl(t->source.word[0] ^ t->source.word[1] ^ t->source.word[2] ^ t->source.word[3]);
	if (s->flags & SERVICE_HASH_PORT)
		client += bpf_ntohs(t->source_port);
	__u32 slot = hash_slot(s, client, 0);
	__u32 key = s->table + slot;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index || *index == SLOT_EMPTY)
		return NO_SERVER;
	if (available(*index, &weight))
		return *index;
	if (!(s->flags & SERVICE_HASH_FALLBACK))
		return NO_SERVER;
	struct fallback f = {.service = s, .client = client, .first = slot, .chosen = NO_SERVER};
	bpf_loop(s->table_len, fallback_step, &f, 0);
	return f.chosen;
}

INLINE bool hash_scheduler(const struct service *s)
{
	return s->scheduler == SCHED_SH || s->scheduler == SCHED_MH;
}

/* Server for a new connection, or NO_SERVER. `w` is working memory. */
GLOBAL int schedule(struct service *s, const struct tuple *t, struct walk *w)
{
	if (!s || !t || !w)
		return NO_SERVER;
	if (hash_scheduler(s))
		return schedule_hash(s, t);
	if (s->scheduler == SCHED_WLC)
		return schedule_wlc(s, w);
	return schedule_cursor(s, w);
}

#endif
