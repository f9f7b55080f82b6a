/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who may open a connection to a service: its lists of prefixes, and its rate of new connections per source. */
#ifndef LBNODE_ACCESS_H
#define LBNODE_ACCESS_H

#include "maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 17);
	__type(key, struct prefix_key);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct source_key);
	__type(value, __u64);
} sources SEC(".maps");

#define PREFIX_LENGTH_MAX (32 + 128)
#define CONNECTION_TOKENS 1000
#define TAKE_TRIES 8 /* lost to other CPUs, each of which took a connection's tokens */

INLINE bool denied(const struct service *s, const struct addr *source)
{
	struct prefix_key key = {.length = PREFIX_LENGTH_MAX, .service = s->index, .address = *source};
	__u32 *found = bpf_map_lookup_elem(&prefixes, &key);
	return found && *found != ACCESS_ALLOW;
}

/* Take a connection out of the bucket. False: there is not enough in it; it stays as it is, its clock too. */
INLINE bool take(__u64 *bucket, const struct service *s, __u32 now)
{
	__u64 most = (__u64)s->burst * CONNECTION_TOKENS;
	__u64 tokens = (*bucket >> 32) + (__u64)(now - (__u32)*bucket) * s->rate;
	if (tokens > most)
		tokens = most;
	if (tokens < CONNECTION_TOKENS)
		return false;
	*bucket = (tokens - CONNECTION_TOKENS) << 32 | now;
	return true;
}

/* Token bucket of the source's prefix, as RFC 2697 section 3 has it for one colour. A new one is full. */
INLINE bool too_fast(const struct service *s, const struct addr *source, __u32 now)
{
	struct source_key key = {.service = s->index};
	key.address.half[0] = source->half[0] & s->rate_mask.half[0];
	key.address.half[1] = source->half[1] & s->rate_mask.half[1];
	__u64 *bucket = bpf_map_lookup_elem(&sources, &key);
	if (!bucket) {
		__u64 full = (__u64)s->burst * CONNECTION_TOKENS << 32 | now;
		take(&full, s, now);
		bpf_map_update_elem(&sources, &key, &full, BPF_NOEXIST);
		return false; /* beside another CPU that was first: one more than the burst */
	}
	for (int try = 0; try < TAKE_TRIES; try++) {
		__u64 old = *(volatile __u64 *)bucket, left = old;
		if (!take(&left, s, now))
			return true;
		if (__sync_val_compare_and_swap(bucket, old, left) == old)
			return false;
	}
	return true;
}

/* 0, or the event that tells why not. `begins`: the packet opens a connection, and does not only find it again. */
GLOBAL int refused(const struct service *s, const struct addr *source, __u32 now, __u32 begins)
{
	if (!s || !source)
		return EVENT_DROP_ERROR;
	if (s->flags & SERVICE_LISTS && denied(s, source))
		return EVENT_DROP_DENIED;
	if (s->flags & SERVICE_RATE && begins && too_fast(s, source, now))
		return EVENT_DROP_RATE;
	return 0;
}

#endif
