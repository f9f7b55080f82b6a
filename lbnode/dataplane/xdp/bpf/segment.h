/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A TCP segment's header and options (RFC 9293 3.1, RFC 7323, RFC 2018) in memory, for the few packets that need them. */
#ifndef LBNODE_SEGMENT_H
#define LBNODE_SEGMENT_H

#include "older.h"
#include "packet.h"

#define TCP_HEADER 20
#define TCP_OPTIONS_MAX 40
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2
#define OPTION_SCALE 3
#define OPTION_SACK_PERMITTED 4
#define OPTION_SACK 5
#define SCALE_MAX 14 /* RFC 7323 2.3 */
#define NO_SCALE 15

/* The header, and the three words of options that the gateway's own segments have. */
struct tcp_header {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* upper half: words of the header */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
	__be32 option[3];
};
#define SEGMENT_HEADER 32

struct tcp_options {
	__u32 length; /* bytes of `byte` that are read */
	__u16 mss;    /* 0 = not given */
	__u8 scale;   /* of windows; NO_SCALE = not given */
	__u8 sack_permitted;
	__u8 sack_at; /* of the first block in `byte`; 0 = none */
	__u8 sack_end;
	__u8 strip;    /* toa.h: this option is overwritten */
	__u8 stripped; /* one was */
	__u32 next;    /* while they are read; toa.h: bytes of the option that are left */
	__u32 mss_at;  /* of its value in `byte`; 0 = not given */
	__u8 byte[64];
};

/* What becomes of a packet's TCP part. */
enum rewriting {
	REWRITE_NOTHING,
	REWRITE_NUMBERS, /* sequence numbers, window and SACK's blocks are others */
	REWRITE_SEGMENT, /* another segment, to where the packet goes */
	REWRITE_ANSWER,	 /* another segment, back to the packet's sender */
};

/* Working memory of syn_proxy.h. */
struct syn_proxy {
	struct tcp_header tcp; /* the packet's; then what it becomes */
	__u32 data;	       /* 1: a byte of 0 follows the header; directly behind it */
	__u32 seq;	       /* of the packet */
	__u32 ack;
	__u32 isn; /* of the client */
	__u32 cookie;
	__u32 window;  /* of the packet */
	__u32 rewrite; /* enum rewriting */
	struct tcp_options options;
	__u8 before[64]; /* options.byte, before SACK's blocks were changed */
};

/* The option that begins at `next`. The callback's state lies outside the stack (struct walk in sched_walk.h says why). */
static long option_step(__u32 i, struct tcp_options **step)
{
	struct tcp_options *o = *step;
	__u32 at = o->next, left = o->length - at;
	if (at >= o->length || at >= TCP_OPTIONS_MAX)
		return 1;
	__u8 kind = o->byte[at & 63];
	if (kind == OPTION_END)
		return 1;
	if (kind == OPTION_NOP) {
		o->next = at + 1;
		return 0;
	}
	__u32 size = o->byte[(at + 1) & 63];
	if (size < 2 || size > left)
		return 1;
	if (kind == OPTION_MSS && size == 4) {
		o->mss = o->byte[(at + 2) & 63] << 8 | o->byte[(at + 3) & 63];
		o->mss_at = at + 2;
	}
	if (kind == OPTION_SCALE && size == 3)
		o->scale = o->byte[(at + 2) & 63] > SCALE_MAX ? SCALE_MAX : o->byte[(at + 2) & 63];
	if (kind == OPTION_SACK_PERMITTED && size == 2)
		o->sack_permitted = 1;
	if (kind == OPTION_SACK && (size & 7) == 2) {
		o->sack_at = at + 2;
		o->sack_end = at + size;
	}
	o->next = at + size;
	return 0;
}
LOOPED(option_step, struct tcp_options *)

/* What the options in `byte` say; ends at the first malformed one. */
GLOBAL int read_options(struct tcp_options *o)
{
	if (!o)
		return 0;
	o->next = 0;
	o->mss = 0;
	o->mss_at = 0;
	o->scale = NO_SCALE;
	o->sack_permitted = o->sack_at = o->sack_end = 0;
	struct tcp_options *step = o;
	if (o->length)
		LOOP(TCP_OPTIONS_MAX, option_step, &step);
	return 0;
}

/* Four bytes of the options, which need not be aligned. */
INLINE __u32 option_word(const struct tcp_options *o, __u32 at)
{
	return (__u32)o->byte[at & 63] << 24 | o->byte[(at + 1) & 63] << 16 | o->byte[(at + 2) & 63] << 8 |
	       o->byte[(at + 3) & 63];
}

INLINE void set_option_word(struct tcp_options *o, __u32 at, __u32 value)
{
	o->byte[at & 63] = value >> 24;
	o->byte[(at + 1) & 63] = value >> 16;
	o->byte[(at + 2) & 63] = value >> 8;
	o->byte[(at + 3) & 63] = value;
}

/* The edges of SACK's blocks (RFC 2018 section 3) as the server numbers its bytes. */
GLOBAL int sack_shift(struct tcp_options *o, __u32 delta)
{
	if (!o)
		return 0;
	__u32 at = o->sack_at;
	for (int i = 0; i < 8; i++) {
		if (at + 4 > o->sack_end)
			break;
		set_option_word(o, at, option_word(o, at) - delta);
		at += 4;
	}
	return 0;
}

/* The options of SYN and SYN-ACK, always in three words. */
INLINE void set_options(struct tcp_header *tcp, __u16 mss, __u8 scale, bool sack_permitted)
{
	tcp->option[0] = bpf_htonl(OPTION_MSS << 24 | 4 << 16 | mss);
	tcp->option[1] = bpf_htonl(sack_permitted ? 0x01010000 | OPTION_SACK_PERMITTED << 8 | 2 : 0x01010101);
	tcp->option[2] = bpf_htonl(scale == NO_SCALE ? 0x01010101 : 0x01000000 | OPTION_SCALE << 16 | 3 << 8 | scale);
}

/* A segment of the gateway's own, from the same ports to the same ports. */
INLINE void set_segment(struct tcp_header *tcp, __u32 seq, __u32 ack, __u8 flags, __u32 window)
{
	tcp->seq = bpf_htonl(seq);
	tcp->ack = bpf_htonl(ack);
	tcp->offset = SEGMENT_HEADER / 4 << 4;
	tcp->flags = flags;
	tcp->window = bpf_htons(window > 0xffff ? 0xffff : window);
	tcp->urgent = 0;
}

#endif
