// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Harness of ns_per_packet.py. BPF_PROG_TEST_RUN does not restore the packet between repetitions: `restore` does, picks
 * the next flow, and tail-calls the program under test. `nothing` is what the harness costs by itself; `parse_and_send`
 * is the least that a balancer can do: look at the headers, turn the MAC addresses round, send.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FRAME 64

struct harness {
	__u64 frame[FRAME / 8];
	__u32 mask; /* flows - 1 */
	__u32 next; /* flow */
	__u32 program;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct harness);
} harness SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

SEC("xdp")
int restore(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct harness *h = bpf_map_lookup_elem(&harness, &zero);
	if (!h)
		return XDP_ABORTED;
	int surplus = (int)bpf_xdp_get_buff_len(ctx) - FRAME;
	if (surplus && bpf_xdp_adjust_head(ctx, surplus))
		return XDP_ABORTED;
	void *data = (void *)(long)ctx->data;
	__u64 *word = data;
	struct iphdr *ip = data + ETH_HLEN;
	struct tcphdr *tcp = (void *)(ip + 1);
	if (data + FRAME > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < FRAME / 8; i++)
		word[i] = h->frame[i];
	__u32 flow = h->next++ & h->mask;
	/* Address and identification change in opposite directions: the header's checksum stays right. */
	*((__u16 *)&ip->saddr + 1) = bpf_htons(flow >> 16);
	ip->id = bpf_htons(0xffff - (flow >> 16));
	tcp->source = bpf_htons(flow);
	bpf_tail_call(ctx, &programs, h->program);
	return XDP_ABORTED;
}

SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	return XDP_TX;
}

SEC("xdp")
int parse_and_send(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ip->ihl != 5 || ip->protocol != 6 || ip->frag_off & bpf_htons(0x3fff) || !tcp->dest)
		return XDP_PASS;
	__u8 mac[ETH_ALEN];
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return XDP_TX;
}
