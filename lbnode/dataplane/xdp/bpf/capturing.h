/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The switch of `lbctl capture`, a constant that is set when the program is loaded: where it is 0 the verifier removes
 * everything behind it. And the capture's working memory.
 */
#ifndef LBNODE_CAPTURING_H
#define LBNODE_CAPTURING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lb.h"

const volatile __u32 capturing SEC(".rodata.capture");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture);
} capture SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} captured SEC(".maps");

/* Of the packet that this CPU is busy with; `record` and `data` as they go into the ring. */
struct capture_state {
	__u32 wanted;
	__u32 event;
	struct capture_record record;
	__u8 data[CAPTURE_SNAP];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture_state);
} capture_state SEC(".maps");

static __always_inline struct capture_state *get_capture_state(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&capture_state, &zero);
}

/* What is counted while a packet is worked on says why it is dropped. */
static __always_inline void note_event(__u32 event)
{
	struct capture_state *state = get_capture_state();
	if (state && state->event < EVENT_DROPS)
		state->event = event;
}

#define COUNTED(event)                                                                                                 \
	do {                                                                                                           \
		if (capturing)                                                                                         \
			note_event(event);                                                                             \
	} while (0)

#endif
