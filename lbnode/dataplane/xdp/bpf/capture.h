/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `lbctl capture`: packets as they come in, with what became of them, and as they leave. A frame is kept before it is
 * changed, and handed out when its verdict is known.
 */
#ifndef LBNODE_CAPTURE_H
#define LBNODE_CAPTURE_H

#include "admit.h"

INLINE struct capture *get_capture(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&capture, &zero);
}

INLINE bool capture_prefix(const struct capture *c, const struct addr *address)
{
	return !((address->half[0] ^ c->prefix.half[0]) & c->prefix_mask.half[0]) &&
	       !((address->half[1] ^ c->prefix.half[1]) & c->prefix_mask.half[1]);
}

/* Later fragments, and ICMP, have no ports: they are not left out for them. */
INLINE bool capture_tuple(const struct capture *c, const struct tuple *t)
{
	if (c->protocol && t->protocol != c->protocol)
		return false;
	if (c->port && t->source_port | t->target_port && t->source_port != c->port && t->target_port != c->port)
		return false;
	return capture_prefix(c, &t->source) || capture_prefix(c, &t->target);
}

/* What can be told before anybody is asked about the packet. */
INLINE bool capture_wants(const struct capture *c, const struct packet *p, __be16 ether_type)
{
	if (ether_type != bpf_htons(ETH_P_IP) && ether_type != bpf_htons(ETH_P_IPV6))
		return !c->protocol && !c->port && !c->flags && !(c->prefix_mask.half[0] | c->prefix_mask.half[1]);
	if (p->kind == KIND_ICMP_ERROR && capture_tuple(c, &p->quoted))
		return true;
	return capture_tuple(c, &p->tuple);
}

/* Copy the frame's first bytes. 0, or a negative errno. */
INLINE long capture_frame(void *ctx, const int hook, const struct capture *c, struct capture_state *state)
{
	struct capture_record *record = &state->record;
	record->length = frame_len(ctx, hook);
	record->captured = record->length < c->snap ? record->length : c->snap;
	/* The verifier wants to see that it is neither 0 nor too long. */
	__u32 last = (*(volatile __u32 *)&record->captured - 1) & (CAPTURE_SNAP - 1);
	asm volatile("" : "+r"(last));
	return load_bytes(ctx, hook, 0, state->data, last + 1);
}

/* The packet has been read and is as it came. */
INLINE int capture_begin(void *ctx, const int hook, struct scratch *memory)
{
	struct capture *c = get_capture();
	struct capture_state *state = get_capture_state();
	struct ethhdr *eth = frame(ctx, hook);
	if (!c || !state)
		return 0;
	__builtin_memset(&state->record, 0, sizeof(state->record));
	memory->action = ACTION_PASS;
	state->event = 0;
	state->wanted = 0;
	state->record.time = bpf_ktime_get_boot_ns();
	if (state->record.time > c->until || c->taken >= c->limit || (void *)(eth + 1) > frame_end(ctx, hook))
		return 0;
	if (!capture_wants(c, &memory->packet, eth->h_proto))
		return 0;
	state->record.ifindex = ingress(ctx, hook);
	state->record.tagged = is_xdp(hook) && memory->vlan;
	state->record.vlan = is_xdp(hook) ? memory->vlan : 0;
	state->wanted = capture_frame(ctx, hook, c, state) == 0;
	return 0;
}

INLINE __u32 capture_verdict(const int hook, const struct scratch *memory, __u32 event)
{
	int verdict = memory->verdict;
	if (event >= EVENT_DROPS || verdict == dropped(hook))
		return CAPTURE_DROPPED;
	if (memory->action == ACTION_TO_SERVER)
		return CAPTURE_TO_SERVER;
	if (memory->action == ACTION_TO_CLIENT)
		return CAPTURE_TO_CLIENT;
	return verdict == pass(hook) ? CAPTURE_PASSED : CAPTURE_ANSWERED;
}

/* What could not be told before; `server` NULL: the packet is not on its way to or from one. */
INLINE bool capture_takes(const struct capture *c, const struct packet *p, __u32 verdict, __u32 event,
			  const struct server *server)
{
	const struct tuple *t = &p->tuple;
	if (!(c->verdicts >> (verdict & 31) & 1) || (c->event && (verdict != CAPTURE_DROPPED || event != c->event)))
		return false;
	if (c->flags & CAPTURE_SERVICE) {
		bool asked = c->mark ? p->mark == c->mark
				     : t->protocol == c->vip_protocol && addr_equal(&t->target, &c->vip) &&
					       (!c->vip_port || t->target_port == c->vip_port);
		if (server ? server->service != c->service : !asked)
			return false;
	}
	if (!(c->flags & CAPTURE_SERVER))
		return true;
	if (server)
		return addr_equal(&server->address, &c->server) && (!c->server_port || server->port == c->server_port);
	return addr_equal(&t->source, &c->server) && (!c->server_port || t->source_port == c->server_port);
}

/* False: there have been enough. Some more than `rate` may be taken where CPUs begin a second together. */
INLINE bool capture_within_rate(struct capture *c, __u64 now)
{
	__u64 second = now / 1000000000;
	if (c->second != second) {
		c->second = second;
		c->in_second = 0;
	}
	if (__sync_fetch_and_add(&c->in_second, 1) < c->rate)
		return true;
	__sync_fetch_and_add(&c->over, 1);
	return false;
}

INLINE void capture_put(struct capture *c, struct capture_state *state)
{
	__u64 size = (*(volatile __u32 *)&state->record.captured - 1) & (CAPTURE_SNAP - 1);
	if (bpf_ringbuf_output(&captured, &state->record, sizeof(state->record) + size + 1, 0))
		__sync_fetch_and_add(&c->lost, 1);
}

/* memory->verdict is what the program is going to return. */
INLINE int capture_end(void *ctx, const int hook, struct scratch *memory)
{
	struct capture *c = get_capture();
	struct capture_state *state = get_capture_state();
	struct server *server = NULL;
	if (!c || !state || !state->wanted)
		return 0;
	__u32 event = state->event, verdict = capture_verdict(hook, memory, event), index = memory->decision.server;
	if (memory->action == ACTION_TO_SERVER || memory->action == ACTION_TO_CLIENT)
		server = bpf_map_lookup_elem(&servers, &index);
	if (!capture_takes(c, &memory->packet, verdict, event, server) || !capture_within_rate(c, state->record.time) ||
	    __sync_fetch_and_add(&c->taken, 1) >= c->limit)
		return 0;
	state->record.verdict = verdict;
	state->record.event = event;
	state->record.server = server ? index : 0;
	capture_put(c, state);
	bool sent = (int)memory->verdict != pass(hook) && (int)memory->verdict != dropped(hook);
	if (!sent && event != EVENT_NO_NEIGHBOUR && event != EVENT_STACK)
		return 0;
	state->record.leaves = 1;
	if (verdict == CAPTURE_TO_SERVER || verdict == CAPTURE_TO_CLIENT)
		state->record.ifindex = memory->hop.ifindex; /* anything else goes back */
	state->record.tagged = 0;
	if (capture_frame(ctx, hook, c, state) == 0)
		capture_put(c, state);
	return 0;
}

RARE(capture_begin)
RARE(capture_end)

INLINE int with_capture(void *ctx, const int hook, struct scratch *memory, int verdict)
{
	if (capturing) {
		memory->verdict = verdict;
		call_capture_end(ctx, hook, memory);
	}
	return verdict;
}

#endif
