/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Another set of maps takes over, of another size or layout (succession.py). While its table fills with the connections of
 * this one, this program goes on with those it has, and gives every other packet to the successor: the same program, loaded
 * around the other maps, perhaps of a later version. So nothing is lost, in whatever order the interfaces change over.
 */
#ifndef LBNODE_SUCCESSOR_H
#define LBNODE_SUCCESSOR_H

#include "vlan.h"

/* A map of programs takes those of one kind alone. */
#define SUCCESSOR(name)                                                                                                \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                 \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, __u32);                                                                                  \
	} name SEC(".maps")

SUCCESSOR(successor_xdp);
SUCCESSOR(successor_xdp_frags);
SUCCESSOR(successor_tc);

INLINE bool has_successor(void)
{
	struct config *config = get_config();
	return config && config->flags & CONFIG_SUCCESSOR;
}

/* The frame as it came in. Returns only if there is no successor after all. */
INLINE int succeed(void *ctx, const int hook, struct scratch *memory)
{
	if (hook == HOOK_TC) {
		bpf_tail_call(ctx, &successor_tc, 0);
		return pass(hook);
	}
	if (unlikely(memory->vlan)) {
		memory->lower = 0;
		memory->verdict = XDP_PASS;
		if (tag(ctx, memory) != XDP_PASS)
			return dropped(hook);
		memory->vlan = 0;
	}
	if (hook == HOOK_XDP)
		bpf_tail_call(ctx, &successor_xdp, 0);
	else
		bpf_tail_call(ctx, &successor_xdp_frags, 0);
	return pass(hook);
}

#endif
