/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sweeping timer: moves the clock, removes what expired or whose server is gone, and reports connections again whose
 * copies at the peers grow old. It belongs to the kernel: it goes on when the daemon is dead.
 */
#ifndef LBNODE_SWEEP_H
#define LBNODE_SWEEP_H

#include "track.h"

#define TICK_MS 10
#define TICKS_PER_PASS 64 /* the whole table every 0.64 s */
#define SEARCHES 6400	  /* a second, in vain, for room: some 5 ms */

/* Peers learnt of it never, or so long ago that half of its time there has passed, and it had packets since. */
INLINE bool sync_due(const struct config *config, const struct conn *c, __u64 word, __u32 now)
{
	if (!(config->flags & CONFIG_SYNC) || !worth_sync(word) || word_flags(word) & CONN_CHANGED)
		return false;
	if (!c->synced_ms)
		return true;
	return (__s32)(c->last_ms - c->synced_ms) > 0 && now - c->synced_ms > conn_timeout(c, word) / 2;
}

#define TEMPLATE_HOLD_MS 60000

/* ip_vs_conn_expire: a template lives as long as connections of its client, and up to a minute after. */
GLOBAL int template_hold(__u64 ref, __u32 now)
{
	struct place place = {};
	if (!conn_at(ref, &place))
		return 0;
	struct conn *c = place_conn(&place);
	__u32 hold = c->timeout_ms < TEMPLATE_HOLD_MS ? c->timeout_ms : TEMPLATE_HOLD_MS;
	if (now - c->last_ms > c->timeout_ms - hold)
		c->last_ms = now - (c->timeout_ms - hold);
	return 0;
}

/* Returns the number of connections removed. */
GLOBAL int sweep_bucket(__u32 number)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	struct place place = {.number = number};
	place.bucket = bpf_map_lookup_elem(&conns, &number);
	if (!place.bucket || !config || !clock)
		return 0;
	__u32 now = clock->now_ms;
	int removed = 0;
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		place.way = way;
		place.word = *(volatile __u64 *)place_word(&place);
		if (!word_used(place.word))
			continue;
		struct conn *c = place_conn(&place);
		if (conn_expired(config, c, place.word, now) || !get_server(c->server, c->generation)) {
			removed += conn_remove(&place);
			continue;
		}
		if (place_back(&place)->control)
			template_hold(place_back(&place)->control, now);
		if (sync_due(config, c, place.word, now)) {
			__u64 word = place.word | (__u64)CONN_CHANGED << 8;
			if (swap_word(place_word(&place), place.word, word))
				report(&place);
		}
	}
	return removed;
}

struct pass_state {
	__u32 first;
	__u32 removed;
};

static long sweep_step(__u32 i, struct pass_state *state)
{
	state->removed += sweep_bucket((state->first + i) & (bucket_count() - 1));
	return 0;
}
LOOPED(sweep_step, struct pass_state)

static int tick(void *map, __u32 *key, struct sweeper *sweeper)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	if (config && clock) {
		__u32 buckets = bucket_count(), share = buckets / TICKS_PER_PASS;
		struct pass_state state = {.first = sweeper->cursor};
		if (!share)
			share = 1;
		clock->now_ms = bpf_ktime_get_ns() / 1000000;
		clock->icmp_tokens = (config->icmp_rate + 1000 / TICK_MS - 1) / (1000 / TICK_MS);
		clock->searches = SEARCHES * TICK_MS / 1000;
		LOOP(share, sweep_step, &state);
		sweeper->cursor = (state.first + share) & (buckets - 1);
	}
	bpf_timer_start(&sweeper->timer, TICK_MS * 1000000ULL, 0);
	return 0;
}

#define CLOCK_MONOTONIC 1

SEC("syscall")
int start(void *ctx)
{
	__u32 zero = 0;
	struct sweeper *s = bpf_map_lookup_elem(&sweeper, &zero);
	struct clock *clock = get_clock();
	if (!s || !clock)
		return -ENOENT;
	clock->now_ms = bpf_ktime_get_ns() / 1000000; /* whoever enters connections next needs it */
	long error = bpf_timer_init(&s->timer, &sweeper, CLOCK_MONOTONIC);
	if (error && error != -EBUSY) /* busy: it is there already, and gets this program's code */
		return error;
	error = bpf_timer_set_callback(&s->timer, tick);
	if (error)
		return error;
	return bpf_timer_start(&s->timer, 0, 0);
}

SEC("syscall")
int sweep(struct sweep_args *args)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	if (!config || !clock)
		return -ENOENT;
	struct pass_state state = {};
	clock->now_ms = args->now_ms;
	clock->icmp_tokens = config->icmp_rate;
	clock->searches = SEARCHES;
	LOOP(bucket_count(), sweep_step, &state);
	args->removed = state.removed;
	return 0;
}

#endif
