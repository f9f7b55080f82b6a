/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Schedulers by a hash: ip_vs_sh.c and ip_vs_mh.c of the client, ip_vs_dh.c of the target address. User space fills the
 * tables (slots.py, maglev.py).
 */
#ifndef LBNODE_SCHED_HASH_H
#define LBNODE_SCHED_HASH_H

#include "sched_walk.h"
#include "siphash.h"

/* SipHash-1-3 of one 32-bit word, as the kernel's hsiphash_1u32 on 64-bit machines. */
INLINE __u32 siphash13(__u32 word, __u64 key)
{
	struct sip v = sip_start(key, key);
	sip_word(&v, 4ULL << 56 | word, 1);
	return sip_end(&v, 3);
}

#define MH_KEY 2654435761UL /* IPVS's first key: both halves of the SipHash key */

/* Slot of the table; `offset` differs for the fallback. ip_vs_sh_hashkey, ip_vs_dh_hashkey, ip_vs_mh_hashkey. */
INLINE __u32 hash_slot(const struct service *s, __u32 hashed, __u32 offset)
{
	if (s->scheduler != SCHED_MH)
		return (offset + (hashed * 0x61c88647U >> 24)) & 255;
	return s->table_len ? siphash13(hashed + offset, MH_KEY) % s->table_len : 0;
}

struct fallback {
	struct service *service;
	__u32 hashed, first;
	__u32 chosen;
};

static long fallback_step(__u32 i, struct fallback *f)
{
	struct service *s = f->service;
	__u32 offset = s->table_len ? (i + f->first) % s->table_len : 0;
	__u32 key = s->table + hash_slot(s, f->hashed, offset);
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index)
		return 1;
	if (*index == SLOT_EMPTY || !available(*index))
		return 0;
	f->chosen = *index;
	return 1;
}
LOOPED(fallback_step, struct fallback)

/* IPv4 as it is, the four words of IPv6 by exclusive or (maglev.py: fold). */
INLINE __u32 fold(const struct addr *a)
{
	if (!a->half[0] && a->word[2] == bpf_htonl(0xffff))
		return bpf_ntohl(a->word[3]);
	return bpf_ntohl(a->word[0] ^ a->word[1] ^ a->word[2] ^ a->word[3]);
}

INLINE __u32 schedule_hash(struct service *s, const struct tuple *t)
{
	__u32 hashed = fold(s->scheduler == SCHED_DH ? &t->target : &t->source);
	if (!s->table_len)
		return NO_SERVER;
	if (s->scheduler != SCHED_DH && s->flags & SERVICE_FLAG_2)
		hashed += bpf_ntohs(t->source_port);
	__u32 slot = hash_slot(s, hashed, 0);
	__u32 key = s->table + slot;
	__u32 *index = bpf_map_lookup_elem(&slots, &key);
	if (!index || *index == SLOT_EMPTY)
		return NO_SERVER;
	if (available(*index))
		return *index;
	if (s->scheduler == SCHED_DH || !(s->flags & SERVICE_FLAG_1))
		return NO_SERVER;
	struct fallback f = {.service = s, .hashed = hashed, .first = slot, .chosen = NO_SERVER};
	LOOP(s->table_len, fallback_step, &f);
	return f.chosen;
}

#endif
