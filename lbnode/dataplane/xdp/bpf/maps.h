/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of lb.h, and small helpers that everything uses. Sizes are defaults; the loader overrides them. */
#ifndef LBNODE_MAPS_H
#define LBNODE_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "capturing.h"
#include "events.h"
#include "lb.h"
#include "lease.h"

#define INLINE static __always_inline
/* Verified once, apart from its callers, which knows nothing about the values that they pass or get back. */
#define GLOBAL __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct sweeper {
	struct bpf_timer timer;
	__u32 cursor; /* next bucket */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct group);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct server);
} servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct pool);
} pools SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct addr);
	__type(value, struct vip);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct vlan_key);
	__type(value, __u32);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct egress);
} egress SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct stats);
} server_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct stats);
} service_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct gauge);
} gauges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct half_open);
} half_open SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct timeouts);
} timeouts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct bucket);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* or its elements do not begin where lines of the cache do */
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, struct reply_bucket);
} replies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} clock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sweeper);
} sweeper SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 18);
	__type(key, __u32);
	__type(value, __u64);
} changed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct changed_ends);
} changed_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RECORDS_MAX);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} routes SEC(".maps");

/* The kernel's own description of a map: its size as loaded, without a second place to keep it. */
struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

INLINE __u32 map_size(const void *map)
{
	return ((const struct bpf_map *)map)->max_entries;
}

INLINE __u32 bucket_count(void)
{
	return map_size(&conns);
}

INLINE struct config *get_config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&config, &zero);
}

INLINE struct clock *get_clock(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&clock, &zero);
}

INLINE void count_entries(__s64 change)
{
	__u32 event = EVENT_ENTRIES;
	__s64 *counter = bpf_map_lookup_elem(&events, &event);
	if (counter)
		*counter += change;
}

INLINE bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

INLINE bool addr_is_v4(const struct addr *a)
{
	return !a->half[0] && a->word[2] == bpf_htonl(0xffff);
}

INLINE void addr_set_v4(struct addr *a, __be32 v4)
{
	a->half[0] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = v4;
}

INLINE void tuple_set_protocol(struct tuple *t, __u8 protocol)
{
	t->protocol = protocol;
	t->template = 0;
	__builtin_memset(t->reserved, 0, sizeof(t->reserved));
}

/* Tuples are whole 64-bit words; the types beside them are not, hence the detour through void. */
INLINE bool tuple_equal(const struct tuple *a, const struct tuple *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;
	return x[4] == y[4] && x[1] == y[1] && x[3] == y[3] && x[0] == y[0] && x[2] == y[2];
}

/*
 * Keyed, so that nobody outside can aim at one bucket. IPv4 (both first halves zero) takes the short way. Low half: the
 * first bucket, high half: the second one; ways and tags are taken from bits that small tables do not use for that.
 */
INLINE __u64 mix(__u64 x)
{
	x *= 0x9e3779b97f4a7c15ULL;
	return x ^ (x >> 32);
}

INLINE __u64 tuple_hash(const struct tuple *t, __u64 seed)
{
	const __u64 *x = (const void *)t;
	__u64 h = seed;
	if (x[0] | x[2])
		h = mix(mix(h ^ x[0]) + x[2]);
	h = mix(h ^ x[1]);
	h = mix(h + x[3]);
	h = mix(h ^ x[4]);
	h *= 0xff51afd7ed558ccdULL;
	return h ^ (h >> 29);
}

INLINE __u32 hash_bucket(__u64 hash, int choice, __u32 mask)
{
	return (__u32)(choice ? hash >> 32 : hash) & mask;
}

/* The way that a connection gets in its bucket if that is free. */
INLINE __u32 hash_way(__u64 hash)
{
	return (hash >> 29) & (BUCKET_WAYS - 1);
}

/* Of a connection's word; never 0. */
INLINE __u32 hash_tag(__u64 hash)
{
	return hash >> 48 | 1;
}

/* Of map `replies`; never 0. */
INLINE __u32 hash_reply_tag(__u64 hash)
{
	return (__u32)(hash >> 17) | 1;
}

#endif
