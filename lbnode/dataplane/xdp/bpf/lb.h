/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that the BPF programs and user space share: maps, their values (lb_config.h, lb_conns.h, lb_capture.h), counters,
 * arguments of the programs that user space runs. layout/ mirrors this file (tests/unit/test_xdp_layout.py compares
 * sizes and offsets with the BTF).
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
 * Maps are pinned and outlive programs and daemon. User space writes LAYOUT_VERSION to `meta` when they are ready; maps of
 * another version are carried over to new ones, field by field (succession.py). For that a later version relies on this:
 * - A field keeps its size and its meaning, or gets another name; an array may grow at its end. 0 in a new field means what
 *   was so before. Numbers of enumerations stay.
 * - struct records_args and struct meta grow at the end only; take_all, the maps `records`, `config` (flags) and `successor_*`
 *   keep their names.
 */
#ifndef LBNODE_LB_H
#define LBNODE_LB_H

#include <linux/types.h>

#define LAYOUT_VERSION 15

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

#include "lb_config.h"

/* --- counters: written by the programs -------------------------------------------------------------------------- */

/* maps `server_stats` and `service_stats` PERCPU_ARRAY, by index. Bytes are those of IP packets, headers included. */
struct stats {
	__u64 connections;
	__u64 packets_in;
	__u64 packets_out; /* seen only with FORWARD_MASQUERADE and FORWARD_FULLNAT */
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

/*
 * map `admissions` PERCPU_ARRAY, by service index: what of enum event concerns packets that would have opened a connection
 * to the service, each field the event of its name; and SYN and SYN-ACK whose MSS was clamped.
 */
struct admission {
	__u64 denied;
	__u64 rate;
	__u64 no_server;
	__u64 overloaded;
	__u64 table_full;
	__u64 no_local_port;
	__u64 cookies_sent;
	__u64 cookies_accepted;
	__u64 cookies_refused;
	__u64 clamped;
};

/* map `cursors` ARRAY, by service index: __u64 low 16 bits of epoch << 48 | current weight (wrr) << 16 | position */

/* map `events` PERCPU_ARRAY: __u64 per enum event. Up to EVENT_DROPS packets went on, from there on they were dropped. */
enum event {
	EVENT_ENTRIES = 0, /* +1 per entry made, -1 per entry removed: the sum over CPUs is the table's fill (signed) */
	EVENT_EVICTED,	   /* half-open or finished entry removed for a new connection: the table is full */
	EVENT_UNTRACKED,   /* table full: forwarded by hash (sh, mh) without an entry; direct and tunnel only */
	EVENT_NO_CONNECTION,   /* TCP without SYN and without entry, given to the network stack (it answers RST) */
	EVENT_FRAGMENT,	       /* fragment to a VIP whose first one did not pass here, given to the network stack */
	EVENT_NO_NEIGHBOUR,    /* next hop unresolved: handed to the network stack to resolve */
	EVENT_STACK,	       /* rewritten packet given to the network stack: a route that it alone can use (encap), or
				  larger than the next hop's MTU, and it may be fragmented */
	EVENT_ECHO,	       /* ICMP echo answered */
	EVENT_ICMP_TRANSLATED, /* ICMP error about a balanced connection, passed on */
	EVENT_ICMP_SENT,       /* ICMP error sent by the data plane */
	EVENT_SYNC_LOST,       /* change not queued: the queue `changed` is full; the sweeper reports it later */
	EVENT_IMPORTED,	       /* records merged */
	EVENT_TOA_LEFT_OUT,    /* segment that should have told the client's address, but there was no room for it */
	EVENT_COOKIE_SENT,     /* SYN answered with a cookie: too many connections of its service are half-open */
	EVENT_COOKIE_ACCEPTED, /* ACK with a valid cookie: the connection's server is asked */
	EVENT_COOKIE_REFUSED,  /* ACK without entry and valid cookie while cookies are out; goes on as without them */
	EVENT_DROPS = 16,
	EVENT_DROP_NO_SERVER = 16, /* no server of the service is available; answered with port unreachable */
	EVENT_DROP_TABLE_FULL,	/* no room for a connection that needs an entry: masqueraded, or scheduled by no hash */
	EVENT_DROP_SERVER_GONE, /* packet of a connection to a deleted server */
	EVENT_DROP_IP_HEADER,	/* to a VIP: version or lengths that contradict each other or the frame */
	EVENT_DROP_TOO_BIG,	/* larger than the next hop's MTU; answered with fragmentation needed if DF was set */
	EVENT_DROP_NO_ROUTE,	/* no route to the server or the client, or one that only the network stack could use,
				   which does not take the packet; answered with host unreachable */
	EVENT_DROP_TTL,		/* time to live ran out */
	EVENT_DROP_ERROR,	/* a helper failed: out of memory, headroom missing */
	EVENT_DROP_NO_LEASE,	/* to a VIP whose lease has ended: another node may serve it now */
	EVENT_DROP_SOLICITATION, /* ARP request or neighbour solicitation for such a VIP */
	EVENT_DROP_CLAIM,	 /* ARP or neighbour message of this node's own in the name of such a VIP */
	EVENT_DROP_BUNDLE, /* tc: segments in one buffer to a tunnel with checksums, which the kernel cannot cut */
	EVENT_DROP_NO_LOCAL_PORT, /* full NAT: no free port of a local address was found; answered as NO_SERVER */
	EVENT_DROP_NOT_OPEN,	  /* of a connection that began with a cookie, before its server has answered */
	/* To a VIP, as EVENT_DROP_IP_HEADER. */
	EVENT_DROP_IP_CHECKSUM,
	EVENT_DROP_L4_HEADER,	 /* TCP, UDP or SCTP header cut off, or its lengths are wrong */
	EVENT_DROP_L4_CHECKSUM,	 /* CONFIG_DROP_BAD_CHECKSUMS */
	EVENT_DROP_TCP_FLAGS,	 /* a combination that no TCP sends: SYN with FIN or RST, none at all, ... */
	EVENT_DROP_LAND,	 /* from the VIP itself */
	EVENT_DROP_IP_OPTIONS,	 /* CONFIG_DROP_IP_OPTIONS */
	EVENT_DROP_DENIED,	 /* new connection of a client that the service's lists keep out */
	EVENT_DROP_RATE,	 /* new connection beyond the service's rate for its source */
	EVENT_DROP_UNFRAGMENTED, /* larger than the next hop's MTU, without DF, and the stack cannot fragment it */
	EVENT_DROP_OVERLOADED,	 /* as NO_SERVER: servers that have weight have reached their upper thresholds */
	EVENT_MAX = 64,
};

#include "lb_capture.h"
#include "lb_conns.h"

#endif
