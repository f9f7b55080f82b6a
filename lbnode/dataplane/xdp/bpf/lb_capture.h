/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Part of lb.h, which holds the types used here: what `lbctl capture` asks for and gets. None of these maps is pinned. */
#ifndef LBNODE_LB_CAPTURE_H
#define LBNODE_LB_CAPTURE_H

/* What became of a packet. */
enum capture_verdict {
	CAPTURE_PASSED = 0, /* to the network stack, not balanced */
	CAPTURE_DROPPED,    /* perhaps with an ICMP error to its sender */
	CAPTURE_TO_SERVER,
	CAPTURE_TO_CLIENT,
	CAPTURE_ANSWERED, /* by the data plane itself: ICMP echo, SYN */
};

#define CAPTURE_SERVICE 1 /* only packets of one service */
#define CAPTURE_SERVER 2  /* only packets to or from one server */

/*
 * map `capture` ARRAY[1]: which packets; written before the program that captures is attached. Of these conditions all
 * must hold. The figures at the end are the program's.
 */
struct capture {
	__u64 until;		 /* ns of CLOCK_BOOTTIME */
	struct addr prefix;	 /* either end's address, under the mask */
	struct addr prefix_mask; /* all zero: any */
	struct addr vip;
	struct addr server;
	__u32 flags;	/* CAPTURE_* */
	__u32 verdicts; /* 1 << enum capture_verdict */
	__u32 event;	/* why it is dropped, enum event; 0 = for any reason */
	__u32 service;	/* index */
	__u32 mark;	/* firewall mark of the service, or 0 */
	__u16 vip_port; /* network order; 0 = every port */
	__u16 server_port;
	__u16 port;    /* either end's, network order; 0 = any */
	__u8 protocol; /* IPPROTO_*; 0 = any */
	__u8 vip_protocol;
	__u32 snap;  /* bytes of each frame, at most CAPTURE_SNAP */
	__u32 rate;  /* packets per second */
	__u32 limit; /* packets in all */
	__u32 taken; /* matched, whatever became of their records */
	__u32 over;  /* left out: more than `rate` in a second */
	__u32 lost;  /* records for which there was no room */
	__u32 in_second;
	__u64 second;
};

#define CAPTURE_SNAP 2048

/* map `captured` RINGBUF: this, and the frame's first bytes. */
struct capture_record {
	__u64 time;	/* ns of CLOCK_BOOTTIME */
	__u32 ifindex;	/* that it came in by, or leaves by */
	__u32 length;	/* of the frame */
	__u32 captured; /* bytes that follow */
	__u32 server;	/* index; not of packets that are passed, dropped or answered */
	__u16 vlan;	/* tag that it came in with */
	__u8 tagged;
	__u8 leaves;  /* 0: as it came in; 1: as it leaves, at the same `time` */
	__u8 verdict; /* enum capture_verdict */
	__u8 event;   /* enum event: the first drop's reason, else what was counted last; 0 = nothing */
	__u8 reserved[2];
};

#endif
