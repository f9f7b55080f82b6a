/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that the BPF programs and user space share: maps, their values, counters, arguments of the programs that
 * user space runs. layout.py mirrors this file (tests/unit/test_xdp_layout.py compares sizes and offsets with the BTF).
 *
 * Numbers are in host byte order except where "network order" stands. Reserved fields are zero.
 *
 * Programs
 *   xdp_lb        SEC("xdp")        the balancer on frames            -> attach at the hook "xdp"
 *   xdp_lb_frags  SEC("xdp.frags")  the same for multi-buffer frames (MTU above a page)
 *   tc_lb         SEC("tc")         the balancer on socket buffers    -> attach at the hook "tcx" (ingress)
 *   tc_lease_out  SEC("tc")         keeps the stack from naming VIPs without lease -> tc egress of the same interfaces
 *   tc_behind_xdp SEC("tc")         sends what xdp_lb could not (no neighbour yet) -> "xdp+tcx" (ingress)
 *   start         SEC("syscall")    no argument: starts the sweeping timer with this program's code. Run it after every
 *                                   load, also when maps were adopted. Without it time stands still.
 *   sweep         SEC("syscall")    struct sweep_args: one whole pass at a given time (tests; the timer does the same)
 *   take_changed  SEC("syscall")    struct records_args: changed connections -> map `records`
 *   take_all      SEC("syscall")    struct records_args: every connection from a bucket on -> map `records`
 *   merge         SEC("syscall")    struct records_args: map `records` -> connection table
 * A syscall program's argument is ctx_in of BPF_PROG_TEST_RUN; the kernel writes the result back to the same memory
 * (data_in, data_out, ctx_out, repeat and flags must be 0). Return value 0, or a negative errno as u32.
 *
 * Maps are pinned and outlive programs and daemon. Their content is only understood with the same LAYOUT_VERSION:
 * user space writes it to `meta` when the maps are new, and unloads (losing connections) or refuses if it differs.
 */
#ifndef LBNODE_LB_H
#define LBNODE_LB_H

#include <linux/types.h>

#define LAYOUT_VERSION 5

/* An address of either family: 16 bytes in network order, IPv4 in its mapped form ::ffff:a.b.c.d (RFC 4291 2.5.5.2). */
struct addr {
	union {
		__u8 byte[16];
		__u32 word[4];
		__u64 half[2];
	};
};

/* One direction of a connection. Ports in network order. Compared and hashed as five 64-bit words. */
struct tuple {
	struct addr source;
	struct addr target;
	__u16 source_port;
	__u16 target_port;
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP; 0: template of a firewall mark's service */
	__u8 template; /* 1: of a template, which no packet's tuple equals */
	__u8 reserved[2];
};

/* --- configuration: written by user space alone -------------------------------------------------------------- */

/* map `meta` ARRAY[1] */
struct meta {
	__u32 layout;	  /* LAYOUT_VERSION; 0 = maps are new */
	__u32 generation; /* the last one given to a server */
};

/* IPVS's numbers and names of TCP states (include/net/ip_vs.h); UDP has one state. STATE_NONE marks a free way. */
enum conn_state {
	STATE_NONE = 0,
	STATE_ESTABLISHED,
	STATE_SYN_SENT,
	STATE_SYN_RECV,
	STATE_FIN_WAIT,
	STATE_TIME_WAIT,
	STATE_CLOSE,
	STATE_CLOSE_WAIT,
	STATE_LAST_ACK,
	STATE_LISTEN,
	STATE_SYNACK,
	STATE_UDP,
	STATE_TEMPLATE,
	STATE_MAX,
};

#define CONFIG_SYNC 1 /* report changed connections (set it when somebody calls take_changed regularly) */

/* map `config` ARRAY[1]. Write it before the first packet: time-outs of 0 expire at once. */
struct config {
	__u32 timeout_ms[16]; /* by enum conn_state; IPVS's defaults are in layout.py */
	__u64 seed;	      /* of the connection table's hash; random, chosen once for the life of the maps */
	__u32 flags;	      /* CONFIG_* */
	__u32 icmp_rate;      /* ICMP errors that the data plane may send, per second; 0 = none */
};

/* map `services` HASH: key. */
struct service_key {
	struct addr address;
	__u16 port;	/* network order */
	__u8 protocol;	/* IPPROTO_* */
	__u8 family;	/* 4 or 6 */
	__u32 mark;	/* of firewall-mark services, whose other fields but the family are 0; else 0 */
};

enum scheduler {
	SCHED_RR = 1,
	SCHED_WRR = 2,
	SCHED_WLC = 3,
	SCHED_SH = 4,
	SCHED_MH = 5,
	SCHED_LC = 6,
	SCHED_SED = 7,
	SCHED_NQ = 8,
	SCHED_FO = 9,
	SCHED_OVF = 10,
	SCHED_DH = 11,
	SCHED_LBLC = 12,
	SCHED_LBLCR = 13,
	SCHED_TWOS = 14,
};

/* The first three are ipvsadm's flag-1 to flag-3; schedulers but sh and mh read none of them. */
#define SERVICE_FLAG_1 1	     /* sh-fallback, mh-fallback: another server if the hashed one is unavailable */
#define SERVICE_FLAG_2 2	     /* sh-port, mh-port: hash the client's port too */
#define SERVICE_FLAG_3 4
#define SERVICE_ONE_PACKET 8	     /* every UDP datagram is scheduled, none leaves an entry */
#define SERVICE_MARKED 16	     /* matches a firewall mark */
#define SERVICE_ALL_PORTS 32	     /* matches every port of its address */

/*
 * map `services` HASH: value. Replaced as a whole (BPF_ANY), so readers see the old or the new one.
 *
 * Both ranges lie in map `slots`. A range is never changed in place while a service refers to it: write a new range,
 * replace the service, retire the old range.
 * `epoch` is never 0 and changes whenever the list, a weight or a threshold changes: cursors are then made anew, from
 * `start` (slots.carry_position, slots.wrr_start), and groups look at their members again.
 */
struct service {
	__u32 index;	   /* of `cursors` and `service_stats`; unique among services */
	__u32 scheduler;   /* enum scheduler */
	__u32 flags;	   /* SERVICE_* */
	__u32 epoch;
	__u32 list;	   /* first slot of the list of servers (indexes), weight 0 included; newest server first,
			      fo and ovf: largest weight first */
	__u32 list_len;	   /* at most 65535 */
	__u32 table;	   /* sh, dh: 256 slots, mh: 4093 slots; a slot holds a server's index or SLOT_EMPTY.
			      twos: three slots a server, see struct draw */
	__u32 table_len;
	__u32 start;	   /* rr: position in the list that was chosen last, or list_len: begin at the head.
			      wrr: current weight; the position is the head */
	__u32 max_weight;  /* wrr: largest weight - (gcd - 1), as IPVS; 0 = no server has weight */
	__u32 weight_gcd;  /* wrr: greatest common divisor of the weights that are not 0 */
	__u32 persistent_s;	 /* time-out of persistent clients; 0 = not persistent */
	__u32 group;	   /* lc, wlc, sed, nq, lblc, lblcr: first of the service's groups; else 0 */
	__u32 reserved;
	struct addr persistent_mask; /* clients whose addresses are equal under it are one */
};

#define SLOT_EMPTY 0xffffffffU
/* map `slots` ARRAY: __u32 index of `servers` */

/*
 * map `groups` ARRAY: up to 16 servers of one service that is scheduled by load, linked to a chain; element 0 stays unused.
 * `best` remembers the least loaded member, so that a scheduler looks at one server a group and, in groups where
 * connections came or went since, at every member. User space changes members in place, and the service's epoch after it.
 */
#define GROUP_MEMBERS 16
struct group {
	__u32 version; /* grows whenever a gauge of a member changes */
	__u32 next;    /* index; 0 = the last */
	__u64 best;    /* low 32 bits of the epoch << 32 | low 24 bits of the version << 8 | member or GROUP_* */
	__u32 member[GROUP_MEMBERS]; /* indexes of `servers`, or SLOT_EMPTY */
};
#define GROUP_NONE 0x40	 /* no member is available */
#define GROUP_SPARE 0x80 /* lblc, lblcr: a member has less than half as many active connections as its weight */

/*
 * twos: Walker's alias method. Element i of the table is chosen with equal probability; then, if 32 random bits are
 * below `threshold`, its `server`, else `alias`.
 */
struct draw {
	__u32 server; /* index of `servers` */
	__u32 threshold;
	__u32 alias; /* index of `servers` */
};

/* map `affinity` LRU_HASH: key, value. lblc, lblcr: the servers that a target address was sent to. */
struct affinity_key {
	struct addr target;
	__u32 service; /* index */
	__u32 reserved;
};

#define AFFINITY_SET 32 /* lblcr: servers of one target at most; IPVS knows no limit */
struct affinity {
	__u32 used_ms;
	__u32 changed_ms; /* the set */
	__u32 count;
	__u32 reserved;
	struct {
		__u32 index;
		__u32 generation;
	} server[AFFINITY_SET]; /* newest first; lblc: one */
};

enum forwarding {
	FORWARD_MASQUERADE = 0,
	FORWARD_DIRECT = 1,
	FORWARD_TUNNEL = 2,
	/* reserved: FORWARD_FULLNAT 3 */
};

enum tunnel {
	TUNNEL_IPIP = 0,
	TUNNEL_GUE = 1,
	TUNNEL_GRE = 2, /* IPVS's numbers */
};

#define SERVER_HOP 1 /* next hop fields are valid; else the kernel's routes are asked per packet */
#define SERVER_GONE 2 /* deleted; the index stays while connections to it are tracked, as IPVS's trash */
#define SERVER_KEEP_PORT 4 /* masquerade: the target port stays as the client wrote it */
#define SERVER_TUNNEL_CHECKSUM 8 /* the outer header of GUE or GRE carries a checksum over the whole packet */
#define SERVER_LOCAL 32 /* its address is this node's own: what the client sent goes up the network stack as it is */
#define SERVER_TUNNEL_REMOTE 16 /* GUE's remote checksum offload: for partial checksums, which leave here complete */

/*
 * map `servers` ARRAY: one real server of one service.
 *
 * Life of an index: take one whose generation is 0; zero `gauges` and the per-CPU `server_stats` of that index; write the
 * server with a generation that this index never had (e.g. a counter over all servers, never 0); put it into the list.
 * To delete: take it out of the list, set SERVER_GONE, and write generation 0 when its gauges are 0. Connections name index
 * and generation: those of a server that is gone are removed at their next packet (as with IPVS's expire_nodest_conn = 1),
 * or expire; those of another generation the sweeper removes, too. A server that is added again while it is only gone gets its index and its
 * connections back. A change of weight, thresholds or next hop keeps the generation.
 */
struct server {
	struct addr address;
	__u16 port;	/* network order */
	__u8 forward;	/* enum forwarding */
	__u8 flags;	/* SERVER_* */
	__u32 generation; /* 0 = unused */
	__u32 service;	/* index of its service, for the counters */
	__u32 weight;	/* effective weight; 0 = no new connections */
	__u32 upper_threshold; /* connections; 0 = none */
	__u32 lower_threshold;
	__u8 target_mac[6]; /* next hop */
	__u16 mtu;	/* next hop; 0 = unknown, packets are not checked. At most 65535 */
	__u8 source_mac[6];
	__u16 tunnel_port; /* GUE's; network order */
	__u32 ifindex;	/* next hop */
	__u8 tunnel;	/* enum tunnel */
	__u8 overhead;	/* bytes that FORWARD_TUNNEL puts in front of a packet; 0 with other methods */
	__u16 lease;	/* of its service's address: index of `leases`, 0 = none needed; LEASE_OF_TARGET */
	struct addr tunnel_source; /* outer source address of FORWARD_TUNNEL: preferred source of the route to the server.
				      All zero: the client's address is the outer source, if it is of the server's family  */
	__u32 rank;	   /* order of adding: the newer server has the larger one, and comes first */
	__u32 last_weight; /* the last weight that was not 0: what mh's table is made of */
	__u32 group;	   /* index of `groups`; 0 = in none */
	__u32 mark;	   /* of its service, if that matches a firewall mark; else 0 */
};

/*
 * map `vlans` HASH: key; value __u32 ifindex of the VLAN's interface. Tagged frames of other VLANs are not looked at.
 * map `egress` ARRAY: by ifindex of a VLAN's interface, what a frame at XDP leaves by. Written by user space.
 */
struct vlan_key {
	__u32 lower; /* ifindex that frames with the tag come in by */
	__u32 id;
};

struct egress {
	__u32 lower; /* 0 = not a VLAN's */
	__u16 vlan;  /* its id */
	__u16 reserved;
};

/* map `vips` HASH: key struct addr; addresses that answer ICMP echo: those of all services. */
struct vip {
	__u32 services; /* how many services have the address; user space's own bookkeeping */
	__u32 reserved[3];
};

/*
 * map `leases` ARRAY[LEASES_MAX], BPF_F_MMAPABLE: __u64 per lease, until when (ns of CLOCK_BOOTTIME) the addresses of a VIP
 * group are served. Written by the election process alone; index 0 is not used.
 *
 * map `leased` HASH: key struct addr; value __u32 index of `leases`. The addresses of VIP groups with other members; any
 * other address is served always. Written by user space when the groups change.
 */
#define LEASES_MAX 1024
#define LEASE_OF_TARGET 0xffff /* in struct server: look the packet's target up in `leased` */

/* --- counters: written by the programs -------------------------------------------------------------------------- */

/* maps `server_stats` and `service_stats` PERCPU_ARRAY, by index. Bytes are those of IP packets, headers included. */
struct stats {
	__u64 connections;
	__u64 packets_in;
	__u64 packets_out; /* seen only with FORWARD_MASQUERADE */
	__u64 bytes_in;
	__u64 bytes_out;
};

/*
 * map `gauges` ARRAY, by server index: connections in the table now. As in IPVS active = SYN_RECV and ESTABLISHED (and
 * the other states of an opening), inactive = the rest, UDP always inactive.
 */
struct gauge {
	__s32 active;
	__s32 inactive;
	__u32 overloaded; /* the upper_threshold that was reached, until the connections are fewer than lower_threshold
			     (or 3/4 of the upper), as IPVS; 0 = not. A larger threshold ends it */
	__s32 persistent; /* templates of persistent clients */
};

/* map `cursors` ARRAY, by service index: __u64 low 16 bits of epoch << 48 | current weight (wrr) << 16 | position */

/* map `events` PERCPU_ARRAY: __u64 per enum event. Up to EVENT_DROPS packets went on, from there on they were dropped. */
enum event {
	EVENT_ENTRIES = 0,	 /* +1 per entry made, -1 per entry removed: the sum over CPUs is the table's fill (signed) */
	EVENT_EVICTED,		 /* half-open or finished entry removed for a new connection: the table is full */
	EVENT_UNTRACKED,	 /* table full: forwarded by hash (sh, mh) without an entry; direct and tunnel only */
	EVENT_NO_CONNECTION,	 /* TCP without SYN and without entry, given to the network stack (it answers RST) */
	EVENT_FRAGMENT,		 /* fragment to a VIP whose first one did not pass here, given to the network stack */
	EVENT_NO_NEIGHBOUR,	 /* next hop unresolved: handed to the network stack to resolve */
	EVENT_STACK,		 /* no route that the data plane can use: rewritten packet given to the network stack */
	EVENT_ECHO,		 /* ICMP echo answered */
	EVENT_ICMP_TRANSLATED,	 /* ICMP error about a balanced connection, passed on */
	EVENT_ICMP_SENT,	 /* ICMP error sent by the data plane */
	EVENT_SYNC_LOST,	 /* change not queued: the queue `changed` is full; the sweeper reports it later */
	EVENT_IMPORTED,		 /* records merged */
	EVENT_DROPS = 16,
	EVENT_DROP_NO_SERVER = 16, /* no server of the service is available; answered with port unreachable */
	EVENT_DROP_TABLE_FULL,	 /* no room for a connection that needs an entry: masqueraded, or scheduled by no hash */
	EVENT_DROP_SERVER_GONE,	 /* packet of a connection to a deleted server */
	EVENT_DROP_MALFORMED,	 /* to a VIP, with wrong length, header or IP checksum */
	EVENT_DROP_TOO_BIG,	 /* larger than the next hop's MTU; answered with fragmentation needed if DF was set */
	EVENT_DROP_NO_ROUTE,	 /* direct routing without a usable route to the server */
	EVENT_DROP_TTL,		 /* time to live ran out */
	EVENT_DROP_ERROR,	 /* a helper failed: out of memory, headroom missing */
	EVENT_DROP_NO_LEASE,	 /* to a VIP whose lease has ended: another node may serve it now */
	EVENT_DROP_SOLICITATION, /* ARP request or neighbour solicitation for such a VIP */
	EVENT_DROP_CLAIM,	 /* ARP or neighbour message of this node's own in the name of such a VIP */
	EVENT_DROP_BUNDLE,	 /* tc: segments in one buffer to a tunnel with checksums, which the kernel cannot cut */
	EVENT_MAX = 32,
};

/* --- the connection table: written by the programs -------------------------------------------------------------- */

#define CONN_IMPORTED 1 /* from a peer and not used here yet: not reported back */
#define CONN_ASSURED 2	/* UDP: more than one packet seen; template: one of its connections is no longer half-open. Until
			   then the entry counts as half-open */
#define CONN_CHANGED 4	/* is in the queue `changed` */
#define CONN_NO_OUTPUT 8 /* replies do not pass here (direct, tunnel): IPVS's input-only TCP states */
#define CONN_INACTIVE 16 /* counted as inactive */

/*
 * One connection: both directions in one entry, so that they live and die together. It lies in one of the two buckets
 * that its `in` tuple hashes to; masquerading ones are also referred to from map `replies` by their `out` tuple.
 */
struct conn {
	struct tuple in;  /* client -> VIP */
	struct tuple out; /* server -> client; with full NAT one day: server -> local address */
	__u32 server;	  /* index of `servers` */
	__u32 generation; /* the server's */
	__u32 last_ms;	  /* clock at the last packet */
	__u32 synced_ms;  /* clock when last reported or imported; 0 = never */
	__u8 forward;	  /* enum forwarding at creation */
	__u8 reserved[3];
	__u32 timeout_ms; /* of this entry alone (templates); 0 = by state */
	__u64 control;	  /* template of the client: generation of its way << 32 | (bucket * 4 + way + 1); 0 = none */
};

/*
 * A template (IPVS's word) remembers the server of a persistent service's client. `in`: the client's network, port 0 ->
 * the service; `out`: the server -> the client's network. A service of all ports has port 0 there. A firewall mark's has
 * no protocol, and the mark in place of its address: 0.0.0.7, or the first 32 bits of an IPv6 address.
 */
#define BUCKET_WAYS 4
/*
 * map `conns` ARRAY, BPF_F_MMAPABLE. max_entries must be a power of two; capacity = 4 connections per bucket.
 *
 * word[i] of a way: generation of the way << 32 | flags (CONN_*) << 8 | state. State STATE_NONE = free, STATE_BUSY =
 * being written. It changes by compare-and-swap only; the generation grows by one whenever the way is filled or freed.
 * A reader (also user space, through mmap) reads the word, the entry, and the word again: equal generations and neither
 * free nor busy mean that the copy is good.
 */
#define STATE_BUSY 0xff
struct bucket {
	__u64 word[BUCKET_WAYS];
	__u32 tag[BUCKET_WAYS]; /* part of the hash, to compare before touching the entry */
	__u64 reserved[2];
	struct conn way[BUCKET_WAYS];
};

#define REPLY_WAYS 8
/* map `replies` ARRAY, as many elements as `conns` (same power of two): tag << 32 | (bucket * 4 + way + 1); 0 = empty */
struct reply_bucket {
	__u64 ref[REPLY_WAYS];
};

/* map `clock` ARRAY[1]: the programs' time. Milliseconds, wraps after 49 days; only differences mean something. */
struct clock {
	__u32 now_ms;
	__u32 icmp_tokens; /* ICMP errors that may be sent until the next tick */
};

/* --- synchronisation -------------------------------------------------------------------------------------------- */

/*
 * One connection on the wire: addresses instead of indexes, age instead of a time stamp. In network order where the
 * table is, otherwise little endian (both ends check the layout id of layout.py).
 *
 * map `changed` ARRAY, a ring (a power of two): __u64 way generation << 32 | (bucket * 4 + way + 1); 0 = nothing there (yet).
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
	__u8 flags;    /* CONN_ASSURED, CONN_NO_OUTPUT */
	__u8 forward;
	__u8 result;   /* written by `merge`: enum merge_result; 0 on the wire */
	__u32 timeout_ms; /* as in struct conn, for listing; a peer takes its own service's */
};

enum merge_result {
	MERGE_TAKEN = 0,
	MERGE_UNKNOWN = 1, /* no such service or server here (yet): worth trying again after it was programmed */
	MERGE_OLDER = 2,   /* this node saw a packet of it more recently, or it is over */
	MERGE_FULL = 3,
	MERGE_INVALID = 4, /* impossible state, protocol or method */
};

#define RECORDS_SYNC 1 /* take_all: only connections worth synchronising (no half-open ones); else all, for listing */

#define RECORDS_MAX 4096
/* map `records` ARRAY[RECORDS_MAX], BPF_F_MMAPABLE, struct record: arguments and results of the three programs. One
 * caller at a time. */
struct records_args {
	__u32 limit;  /* in: take_*: records wanted, at most RECORDS_MAX; merge: records in the map */
	__u32 count;  /* out: records written (take_*), or taken over (merge) */
	__u32 bucket; /* in, out: take_all: bucket to start from; next one to ask for */
	__u32 done;   /* out: take_all: 1 = the table's end was reached; take_changed: 1 = the queue is empty */
	__u32 flags;  /* in: RECORDS_* */
	__u32 reserved;
};

struct sweep_args {
	__u32 now_ms; /* in: becomes the clock's time */
	__u32 removed; /* out */
};

#endif
