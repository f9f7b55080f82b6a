/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters of what happened, enum event of lb.h. */
#ifndef LBNODE_EVENTS_H
#define LBNODE_EVENTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lb.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} events SEC(".maps");

#ifndef COUNTED
#define COUNTED(event) /* nobody else wants to know */
#endif

static __always_inline void count(__u32 event)
{
	COUNTED(event);
	__u64 *counter = bpf_map_lookup_elem(&events, &event);
	if (counter)
		*counter += 1;
}

#endif
