/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Part of lb.h, which holds the types used here: the connection table, and the records that travel between nodes. */
#ifndef LBNODE_LB_CONNS_H
#define LBNODE_LB_CONNS_H

#define CONN_IMPORTED 1 /* from a peer and not used here yet: not reported back */
/* UDP: more than one packet seen; template: one of its connections is no longer half-open; TCP: began with a cookie, so the
   client is real. Without it the entry counts as half-open: TCP's until it is established. */
#define CONN_ASSURED 2
#define CONN_CHANGED 4	  /* is in the queue `changed` */
#define CONN_NO_OUTPUT 8  /* replies do not pass here (direct, tunnel): IPVS's input-only TCP states */
#define CONN_INACTIVE 16  /* counted as inactive */
#define CONN_PROXIED 32	  /* began with a cookie (syn_proxy.h); while in STATE_SYNACK the server has not answered */
#define CONN_HALF_OPEN 64 /* counted in map `half_open` */

/*
 * One connection: both directions in one entry, so that they live and die together. It lies in one of the two buckets
 * that its `in` tuple hashes to; those whose replies pass here (masquerade, full NAT) are also referred to from map `replies`
 * by their `out` tuple. No two of full NAT have the same one. What all packets of clients read is one line of the
 * processor's cache; the rest stands in struct back.
 */
struct conn {
	struct tuple in;  /* client -> VIP */
	__u32 server;	  /* index of `servers` */
	__u32 generation; /* the server's */
	__u32 last_ms;	  /* clock at the last packet */
	__u32 synced_ms;  /* clock when last reported or imported; 0 = never */
	__u8 forward;	  /* enum forwarding at creation */
	__u8 toa;	  /* full NAT: the server may not have heard yet who the client is */
	__u8 scale_in;	  /* CONN_PROXIED: bits to shift the client's windows left by; while STATE_SYNACK: its scale */
	__u8 scale_out;	  /* CONN_PROXIED: the server's windows: left << 4 | right */
	union {
		__u32 timeout_ms; /* of a template */
		__u32 delta; /* CONN_PROXIED: from the server's sequence numbers to the client's view of them; while
				     STATE_SYNACK: the cookie */
	};
};

struct back {
	struct tuple out; /* server -> client; with full NAT: server -> local address */
	__u64 control;	  /* template of the client: generation of its way << 32 | (bucket * 8 + way + 1); 0 = none */
};

/*
 * A template (IPVS's word) remembers the server of a persistent service's client. `in`: the client's network, port 0 ->
 * the service; `out`: the server -> the client's network. A service of all ports has port 0 there. A firewall mark's has
 * no protocol, and the mark in place of its address: 0.0.0.7, or the first 32 bits of an IPv6 address.
 */
#define BUCKET_WAYS 8
/*
 * map `conns` ARRAY, BPF_F_MMAPABLE. max_entries must be a power of two; capacity = 8 connections per bucket.
 *
 * word[i] of a way: generation of the way << 32 | tag << 16 | flags (CONN_*) << 8 | state. State STATE_NONE = free,
 * STATE_BUSY = being written. The tag is a part of the hash of the connection that is there or being entered, to compare
 * before touching the entry; 0: none. The word changes by compare-and-swap only; the generation grows by one whenever the
 * way is filled or freed. Which way a connection gets in its bucket, if that is free, is told by its hash, too: most are
 * found at the first look.
 * A reader (also user space, through mmap) reads the word, the entry, and the word again: equal generations and neither
 * free nor busy mean that the copy is good. A connection may be moved to its other bucket (room.h): for a moment it is
 * in both.
 */
#define STATE_BUSY 0xff
struct bucket {
	__u64 word[BUCKET_WAYS];      /* one line of the processor's cache */
	struct conn way[BUCKET_WAYS]; /* a line each */
	struct back back[BUCKET_WAYS];
}; /* 15 lines: an odd number, or the words of all buckets would share a few sets of the cache */

#define REPLY_WAYS 8
/*
 * map `replies` ARRAY, BPF_F_MMAPABLE, twice as many elements as `conns`, so that it is never more than half full: part
 * of the hash << 32 | (bucket * 8 + way + 1); 0 = empty.
 */
struct reply_bucket {
	__u64 ref[REPLY_WAYS];
};

/* map `half_open` ARRAY, by service index: TCP connections that no packet of the client has confirmed yet. */
struct half_open {
	__s32 entries;	 /* CONN_HALF_OPEN */
	__u32 cookie_ms; /* clock when the last cookie was sent; 0 = never */
};

/* map `clock` ARRAY[1]: the programs' time. Milliseconds, wraps after 49 days; only differences mean something. */
struct clock {
	__u32 now_ms;
	__u32 icmp_tokens; /* ICMP errors that may be sent until the next tick */
	__u32 moves;	   /* connections that were moved to their other buckets; wraps */
	__u32 searches;	   /* vain searches for room (room.h) that may be made until the next tick */
};

/* --- synchronisation -------------------------------------------------------------------------------------------- */

/*
 * One connection on the wire: addresses instead of indexes, age instead of a time stamp. In network order where the
 * table is, otherwise little endian (both ends check the layout id of sync/wire.py).
 *
 * map `changed` ARRAY, a ring (a power of two): __u64 way generation << 32 | (bucket * 8 + way + 1); 0 = nothing there (yet).
 * Filled on a change of state (TCP from ESTABLISHED on, UDP from the second packet on), and by the sweeper for
 * connections that had packets and whose peers' copies lost half of their time. Connections are in it at most once.
 * Not a map of type QUEUE, which Linux 6.1 refuses to programs of type syscall.
 */
/* map `changed_ends` ARRAY[1]: positions, which only grow (modulo 2^32). CPUs write at the tail, one caller takes at the head. */
struct changed_ends {
	__u32 head;
	__u32 tail;
};

struct record {
	struct tuple in;
	struct tuple out;
	__u32 idle_ms; /* since the last packet */
	__u32 mark;    /* of a firewall-mark service; else 0 */
	__u8 state;
	__u8 flags; /* CONN_ASSURED, CONN_NO_OUTPUT, CONN_PROXIED */
	__u8 forward;
	__u8 result;	  /* written by `merge`: enum merge_result; 0 on the wire */
	__u32 timeout_ms; /* when `idle_ms` reaches it the connection is over; a peer takes its own service's */
	__u32 delta;	  /* as in struct conn, of CONN_PROXIED */
	__u8 scale_in;
	__u8 scale_out;
	__u8 reserved[2];
};

enum merge_result {
	MERGE_TAKEN = 0,
	MERGE_UNKNOWN = 1, /* no such service or server here (yet): worth trying again after it was programmed */
	MERGE_OLDER = 2,   /* this node saw a packet of it more recently, or it is over */
	MERGE_FULL = 3,
	MERGE_INVALID = 4, /* impossible state, protocol or method */
};

#define RECORDS_SYNC 1 /* take_all: only connections worth synchronising (no half-open ones); else all, for listing */

/* merge: out of an older set of this node: what packets changed here since stands, also in doubt */
#define RECORDS_CARRIED 2

#define RECORDS_MAX 4096
/* map `records` ARRAY[RECORDS_MAX], BPF_F_MMAPABLE, struct record: arguments and results of the three programs. One
 * caller at a time. */
struct records_args {
	__u32 limit;  /* in: take_*: records wanted, at most RECORDS_MAX; merge: records in the map */
	__u32 count;  /* out: records written (take_*), or taken over (merge) */
	__u32 bucket; /* in, out: take_all: bucket to start from; next one to ask for */
	__u32 done;   /* out: take_all: 1 = the table's end was reached; take_changed: 1 = the queue is empty */
	__u32 flags;  /* in: RECORDS_* */
	__u32 steps;  /* in: take_all: buckets to look at, at most; 0 = any number */
};

struct sweep_args {
	__u32 now_ms;  /* in: becomes the clock's time */
	__u32 removed; /* out */
};

#endif
