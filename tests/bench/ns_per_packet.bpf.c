// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Around the program under test: puts the packet back as it was (a repeated BPF_PROG_TEST_RUN does not), makes it one of
 * many flows, and tail-calls. And programs to compare with: `nothing` sends the packet as it is, `floor` reads headers,
 * swaps MAC addresses and sends, `kernel` leaves it to the kernel's stack.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TEMPLATE 64
#define FIRST_PORT 1024

/* What a flow's number becomes */
enum spread {
	SPREAD_PORTS,	  /* 16384 ports of one address, then those of the next */
	SPREAD_ADDRESSES, /* an address each */
	SPREAD_TABLE,	  /* what map `ends` says */
};

struct setup {
	__u32 length; /* of the frame */
	__u32 mask;   /* flows - 1 */
	__u16 reply;  /* vary the target instead of the source */
	__u16 spread; /* enum spread */
	__u32 count;
	__u64 bytes[TEMPLATE / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setup);
} setup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

/* By number of the flow: the last two bytes of an address << 16 | port */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} ends SEC(".maps");

static __always_inline __u32 end_of(const struct setup *s, __u32 flow)
{
	if (s->spread == SPREAD_PORTS)
		return flow >> 14 << 16 | (FIRST_PORT + (flow & 16383));
	if (s->spread == SPREAD_ADDRESSES)
		return flow << 16 | FIRST_PORT;
	__u32 *end = bpf_map_lookup_elem(&ends, &flow);
	return end ? *end : 0;
}

static __always_inline void vary6(struct ipv6hdr *ip, __u32 reply, __u32 end)
{
	__be16 *port = (void *)(ip + 1);
	(reply ? &ip->daddr : &ip->saddr)->in6_u.u6_addr16[7] |= bpf_htons(end >> 16);
	port[reply ? 1 : 0] = bpf_htons(end);
}

SEC("xdp")
int wrapper(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct setup *s = bpf_map_lookup_elem(&setup, &zero);
	if (!s)
		return XDP_ABORTED;
	int surplus = bpf_xdp_get_buff_len(ctx) - s->length;
	if (surplus && bpf_xdp_adjust_head(ctx, surplus))
		return XDP_ABORTED;
	__u64 *packet = (void *)(long)ctx->data;
	if ((void *)(packet + TEMPLATE / 8) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < TEMPLATE / 8; i++)
		packet[i] = s->bytes[i];
	__u32 end = end_of(s, s->count++ & s->mask);
	if (((struct ethhdr *)packet)->h_proto == bpf_htons(ETH_P_IPV6)) {
		vary6((void *)packet + ETH_HLEN, s->reply, end);
		bpf_tail_call(ctx, &target, 0);
		return XDP_ABORTED;
	}
	struct iphdr *ip = (void *)packet + ETH_HLEN;
	__be16 *port = (void *)(ip + 1);
	__u16 high = end >> 16;
	/* the address ends in .0.0, or .0 and `high` in a byte, so the header's sum grows by what is put there */
	__u32 sum = (__u16)~ip->check + bpf_htons(high);
	ip->check = ~(__u16)((sum & 0xffff) + (sum >> 16));
	if (s->reply) {
		ip->daddr |= bpf_htonl(high);
		port[1] = bpf_htons(end);
	} else {
		ip->saddr |= bpf_htonl(high);
		port[0] = bpf_htons(end);
	}
	bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* The kernel's own way: its stack forwards the packet. */
SEC("xdp")
int kernel(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} absorbed SEC(".maps");

/* The other end of the cable: counts what arrives. */
SEC("xdp")
int absorb(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&absorbed, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_DROP;
}

SEC("xdp")
int floor_program(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return XDP_PASS;
	if (ip->protocol != IPPROTO_TCP || (ip->frag_off & bpf_htons(0x3fff)) || !ip->daddr || !tcp->dest)
		return XDP_PASS;
	__u16 mac[3], *target_mac = (void *)eth->h_dest, *source_mac = (void *)eth->h_source;
	for (int i = 0; i < 3; i++) {
		mac[i] = target_mac[i];
		target_mac[i] = source_mac[i];
		source_mac[i] = mac[i];
	}
	return XDP_TX;
}
