/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * VIP leases, shared by the balancer (lb.bpf.c) and by what guards an IPVS node (lease.bpf.c).
 *
 * The addresses of a VIP group are served only while the group's lease runs. The election process extends it with each
 * advertisement by 2.5 intervals, and a peer waits for 3 at least before it takes over (RFC 9568 6.1). So whatever stops,
 * starves or kills that process, this node is dark before another one serves.
 */
#ifndef LBNODE_LEASE_H
#define LBNODE_LEASE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lb.h"

/* The election process maps it into its memory: extending a lease is one store. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEASES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} leases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct addr);
	__type(value, __u32);
} leased SEC(".maps");

/*
 * Time of the leases, read once per tick of the kernel and CPU: reading the clock costs 23 ns, this one. It is late by up to
 * a tick, at most 10 ms (CONFIG_HZ), and by what the tick's interrupt is late.
 */
struct lease_clock {
	__u64 tick;
	__u64 now; /* ns of CLOCK_BOOTTIME, which goes on while the machine sleeps */
};
/* ns. A lease whose next advertisement leaves in time has 15 ms left, or more: the clock itself is not read for it. */
#define LEASE_CLOCK_LATE 12500000

static __always_inline __u64 lease_now(struct lease_clock *clock)
{
	__u64 tick = bpf_jiffies64();
	if (clock->tick != tick) {
		clock->tick = tick;
		clock->now = bpf_ktime_get_boot_ns();
	}
	return clock->now;
}

/* `now` may be late by LEASE_CLOCK_LATE: a lease that may have ended since then is compared with the clock itself. */
static __always_inline bool lease_runs(__u32 lease, __u64 now)
{
	if (!lease)
		return true;
	__u64 *lookup = bpf_map_lookup_elem(&leases, &lease);
	if (!lookup)
		return false;
	__u64 until = *(volatile __u64 *)lookup;
	if (until > now + LEASE_CLOCK_LATE)
		return true;
	return until > now && until > bpf_ktime_get_boot_ns();
}

/* Whether an address must not be served now. */
static __always_inline bool is_dark(const struct addr *address, __u64 now)
{
	struct addr key = *address; /* Linux 6.1 takes a key from the stack, a map or the packet alone */
	__u32 *lease = bpf_map_lookup_elem(&leased, &key);
	return lease && !lease_runs(*lease, now);
}

static __always_inline bool is_dark_v4(__be32 v4, __u64 now)
{
	struct addr address = {.word = {0, 0, bpf_htonl(0xffff), v4}};
	return is_dark(&address, now);
}

static __always_inline bool is_dark_v6(const void *v6, __u64 now)
{
	struct addr address;
	__builtin_memcpy(&address, v6, sizeof(address));
	return is_dark(&address, now);
}

/*
 * A frame to the MAC address of a virtual router (RFC 9568 7.3). If this node has it, then on an interface above (macvlan):
 * for the kernel the frame is another host's until it gets there.
 */
static __always_inline bool to_virtual_router(const struct ethhdr *eth)
{
	const __u8 *mac = eth->h_dest;
	return !mac[0] && !mac[1] && mac[2] == 0x5e && !mac[3] && (mac[4] == 1 || mac[4] == 2);
}

/* RFC 826, on Ethernet for IPv4. */
struct arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
};
#define ARP_REQUEST 1

/* RFC 4861 4.3 */
struct solicitation {
	__u8 type, code;
	__be16 checksum;
	__be32 reserved;
	__u8 target[16];
};
#define NEIGHBOUR_SOLICITATION 135

/* An announcement asks for its own sender's address (RFC 5227 3) and is no question: this node may learn from it. */
static __always_inline bool arp_dark(const struct arp *arp, const void *end, __u64 now)
{
	if ((void *)(arp + 1) > end || arp->operation != bpf_htons(ARP_REQUEST) || arp->protocol != bpf_htons(ETH_P_IP))
		return false;
	__be32 sender, target;
	__builtin_memcpy(&sender, arp->sender, sizeof(sender));
	__builtin_memcpy(&target, arp->target, sizeof(target));
	return sender != target && is_dark_v4(target, now);
}

static __always_inline bool solicitation_dark(const struct ipv6hdr *ip, const void *end, __u64 now)
{
	const struct solicitation *ask = (const void *)(ip + 1);
	return (void *)(ask + 1) <= end && ip->nexthdr == IPPROTO_ICMPV6 && ask->type == NEIGHBOUR_SOLICITATION &&
	       is_dark_v6(ask->target, now);
}

/* Whether a frame asks who has an address that must not be served now. */
static __always_inline bool asks_for_dark(const struct ethhdr *eth, const void *end, __u64 now)
{
	if (eth->h_proto == bpf_htons(ETH_P_ARP))
		return arp_dark((const void *)(eth + 1), end, now);
	const struct ipv6hdr *ip = (const void *)(eth + 1);
	return eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip + 1) <= end && solicitation_dark(ip, end, now);
}

/* Whether it is addressed to one. */
static __always_inline bool goes_to_dark(const struct ethhdr *eth, const void *end, __u64 now)
{
	const struct iphdr *v4 = (const void *)(eth + 1);
	const struct ipv6hdr *v6 = (const void *)(eth + 1);
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return (void *)(v4 + 1) <= end && is_dark_v4(v4->daddr, now);
	return eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(v6 + 1) <= end && is_dark_v6(&v6->daddr, now);
}

#endif
