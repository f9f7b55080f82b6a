// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What stands at the other end of the cables in the tests.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// A veth delivers what XDP_TX sends to it only if a program is there.
SEC("xdp")
int hand_on(struct xdp_md *ctx)
{
	return XDP_PASS;
}

// Takes the outer header of IP-in-IP (RFC 2003) off, for real servers on kernels without the ipip device.
SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *outer = (void *)(eth + 1);

	if ((void *)(outer + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || outer->ihl != 5 ||
	    outer->protocol != 4 /* IPPROTO_IPIP */)
		return XDP_PASS;

	struct ethhdr saved = *eth;

	if (bpf_xdp_adjust_head(ctx, sizeof(*outer)))
		return XDP_DROP;
	end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > end)
		return XDP_DROP;
	*eth = saved;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
