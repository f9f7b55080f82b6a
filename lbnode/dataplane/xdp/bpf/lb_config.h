/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Part of lb.h, which holds the types used here: configuration, which user space alone writes. */
#ifndef LBNODE_LB_CONFIG_H
#define LBNODE_LB_CONFIG_H

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
/* Of packets to VIPs: */
#define CONFIG_DROP_IP_OPTIONS 2    /* IPv4 options; IPv6 hop-by-hop, routing and destination options headers */
#define CONFIG_DROP_BAD_CHECKSUMS 4 /* TCP's and UDP's */
#define CONFIG_INSPECT (CONFIG_DROP_IP_OPTIONS | CONFIG_DROP_BAD_CHECKSUMS)
#define CONFIG_SUCCESSOR 8 /* packets without an entry go to the programs in `successor_*` */

/* map `config` ARRAY[1]. Write it before the first packet: time-outs of 0 expire at once. */
struct config {
	__u32 timeout_ms[16]; /* by enum conn_state; IPVS's defaults are in settings.py */
	__u64 seed;	      /* of the connection table's hash; random, chosen once for the life of the maps */
	__u32 flags;	      /* CONFIG_* */
	__u32 icmp_rate;      /* ICMP errors that the data plane may send, per second; 0 = none */
	__u64 cookie_key[2];  /* of the SYN cookies' hash; random, chosen once for the life of the maps */
	/* By enum conn_state: no connection that was idle for less is over, whatever service it is of: the shortest of
	   `timeout_ms` and of all in map `timeouts`, or less. */
	__u32 soonest_ms[16];
};

/* map `timeouts` ARRAY, by service index: what the service has in place of `timeout_ms` of struct config. */
struct timeouts {
	__u32 ms[16]; /* by enum conn_state; 0 = as all others */
};

/* map `services` HASH: key. */
struct service_key {
	struct addr address;
	__u16 port;    /* network order */
	__u8 protocol; /* IPPROTO_* */
	__u8 family;   /* 4 or 6 */
	__u32 mark;    /* of firewall-mark services, whose other fields but the family are 0; else 0 */
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
#define SERVICE_FLAG_1 1 /* sh-fallback, mh-fallback: another server if the hashed one is unavailable */
#define SERVICE_FLAG_2 2 /* sh-port, mh-port: hash the client's port too */
#define SERVICE_FLAG_3 4
#define SERVICE_ONE_PACKET 8 /* every UDP datagram is scheduled, none leaves an entry */
#define SERVICE_MARKED 16    /* matches a firewall mark */
#define SERVICE_ALL_PORTS 32 /* matches every port of its address */
#define SERVICE_SYN_PROXY 64 /* `syn_proxy` holds; all servers get and send through here (masquerade) */
#define SERVICE_LISTS 128    /* has entries in `prefixes` */
#define SERVICE_RATE 256     /* `rate`, `burst` and `rate_mask` hold */

/*
 * map `services` HASH: value. Replaced as a whole (BPF_ANY), so readers see the old or the new one.
 *
 * Both ranges lie in map `slots`. A range is never changed in place while a service refers to it: write a new range,
 * replace the service, retire the old range.
 * `epoch` is never 0 and changes whenever the list, a weight or a threshold changes: cursors are then made anew, from
 * `start` (slots.carry_position, slots.wrr_start), and groups look at their members again.
 */
struct service {
	__u32 index;	 /* of `cursors`, `service_stats`, `admissions`; unique among services */
	__u32 scheduler; /* enum scheduler */
	__u32 flags;	 /* SERVICE_* */
	__u32 epoch;
	__u32 list;	/* first slot of the list of servers (indexes), weight 0 included; newest server first,
			      fo and ovf: largest weight first */
	__u32 list_len; /* at most 65535 */
	__u32 table;	/* sh, dh: 256 slots, mh: 4093 slots; a slot holds a server's index or SLOT_EMPTY.
			      twos: three slots a server, see struct draw */
	__u32 table_len;
	__u32 start;		     /* rr: position in the list that was chosen last, or list_len: begin at the head.
			      wrr: current weight; the position is the head */
	__u32 max_weight;	     /* wrr: largest weight - (gcd - 1), as IPVS; 0 = no server has weight */
	__u32 weight_gcd;	     /* wrr: greatest common divisor of the weights that are not 0 */
	__u32 persistent_s;	     /* time-out of persistent clients; 0 = not persistent */
	__u32 group;		     /* lc, wlc, sed, nq, lblc, lblcr: first of the service's groups; else 0 */
	__u32 syn_proxy;	     /* with so many half-open connections, SYNs are answered with cookies */
	struct addr persistent_mask; /* clients whose addresses are equal under it are one */
	struct addr rate_mask;	     /* the same for `rate` */
	__u32 rate;		     /* new connections per second that a source may open in the long run */
	__u32 burst;		     /* ... and at once; at most BURST_MAX */
	__u32 mss;		     /* TCP: the largest that may be announced through here; 0 = any */
	__u32 reserved;
};
#define BURST_MAX 4000000

/*
 * map `prefixes` LPM_TRIE: key; value __u32 enum access. Who may open connections to a service with SERVICE_LISTS: the longest
 * prefix decides, without any the client may. An entry that is ACCESS_OTHERS covers all of the service.
 */
struct prefix_key {
	__u32 length;  /* bits of what follows: 32, and those of the address in its mapped form */
	__u32 service; /* index */
	struct addr address;
};

enum access {
	ACCESS_ALLOW = 1,
	ACCESS_DENY = 2,
	ACCESS_OTHERS = 3, /* denied, because others are allowed */
};

/*
 * map `sources` LRU_HASH: key; value __u64 tokens << 32 | clock in ms when they were counted. A token bucket: a connection
 * takes 1000 tokens, and `rate` tokens a millisecond come back, up to 1000 * `burst`.
 */
struct source_key {
	struct addr address; /* under the service's rate_mask */
	__u32 service;	     /* index */
	__u32 reserved;
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
	FORWARD_FULLNAT = 3, /* masquerade, and the source becomes a local address of the server's pool */
};

enum tunnel {
	TUNNEL_IPIP = 0,
	TUNNEL_GUE = 1,
	TUNNEL_GRE = 2, /* IPVS's numbers */
};

#define SERVER_HOP 1		 /* next hop fields are valid; else the kernel's routes are asked per packet */
#define SERVER_GONE 2		 /* deleted; the index stays while connections to it are tracked, as IPVS's trash */
#define SERVER_KEEP_PORT 4	 /* masquerade, full NAT: the target port stays as the client wrote it */
#define SERVER_TUNNEL_CHECKSUM 8 /* the outer header of GUE or GRE carries a checksum over the whole packet */
#define SERVER_LOCAL 32	 /* its address is this node's own: what the client sent goes up the network stack as it is */
#define SERVER_TOA 64	 /* full NAT over TCP: tell the server the client's address (toa.h) */
#define SERVER_CLAMP 128 /* `mss` is not 0 */
#define SERVER_TUNNEL_REMOTE 16 /* GUE's remote checksum offload: for partial checksums, which leave here complete */

/*
 * map `servers` ARRAY: one real server of one service.
 *
 * Life of an index: take one whose generation is 0; zero `gauges` and the per-CPU `server_stats` of that index; write the
 * server with a generation that this index never had (e.g. a counter over all servers, never 0); put it into the list.
 * To delete: take it out of the list, set SERVER_GONE, and write generation 0 when its gauges are 0. Connections name index
 * and generation: those of a server that is gone are removed at their next packet (as with IPVS's expire_nodest_conn = 1),
 * or expire; those of another generation the sweeper removes, too. A server that is added again while it is only gone gets
 * its index and its connections back. A change of weight, thresholds or next hop keeps the generation.
 */
struct server {
	struct addr address;
	__u16 port;	       /* network order */
	__u8 forward;	       /* enum forwarding */
	__u8 flags;	       /* SERVER_* */
	__u32 generation;      /* 0 = unused */
	__u32 service;	       /* index of its service, for the counters */
	__u32 weight;	       /* effective weight; 0 = no new connections */
	__u32 upper_threshold; /* connections; 0 = none */
	__u32 lower_threshold;
	__u8 target_mac[6]; /* next hop */
	__u16 mtu;	    /* next hop; 0 = unknown, packets are not checked. At most 65535 */
	__u8 source_mac[6];
	__u16 tunnel_port; /* GUE's; network order */
	__u32 ifindex;	   /* next hop */
	__u8 tunnel;	   /* enum tunnel */
	__u8 overhead;	   /* bytes that FORWARD_TUNNEL puts in front of a packet; 0 with other methods */
	__u16 lease;	   /* of its service's address: index of `leases`, 0 = none needed; LEASE_OF_TARGET */
	/* Outer source address of FORWARD_TUNNEL: preferred source of the route to the server. All zero: the client's address is
	   the outer source, if it is of the server's family. */
	struct addr tunnel_source;
	__u32 rank;	   /* order of adding: the newer server has the larger one, and comes first */
	__u32 last_weight; /* the last weight that was not 0: what mh's table is made of */
	__u32 group;	   /* index of `groups`; 0 = in none */
	__u32 mark;	   /* of its service, if that matches a firewall mark; else 0 */
	__u32 pool;	   /* FORWARD_FULLNAT: index of `pools`; else 0 */
	__u32 mss;	   /* its service's */
};

/*
 * map `pools` ARRAY: the local addresses that full NAT takes sources of connections from, all of one family; element 0
 * stays empty. Never changed while a server refers to it.
 */
#define POOL_ADDRESSES 16
struct pool {
	__u32 count;
	__u32 reserved[3];
	struct addr address[POOL_ADDRESSES];
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

/*
 * map `routes` ARRAY[1]: __u32, which grows whenever the kernel's links, addresses, routes, rules or neighbours change: what
 * programs remember of the kernel's look-ups is void then. Written by user space.
 */

#endif
