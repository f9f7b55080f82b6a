// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What stands at the other end of the cables in the tests.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// A veth delivers what XDP_TX sends to it only if a program is there.
SEC("xdp")
int hand_on(struct xdp_md *ctx)
{
	return XDP_PASS;
}

#define GUE_PORT 6080

struct gre {
	__be16 flags;
	__be16 protocol;
};

// Length of the outer headers; `inner`: what is inside, in Ethernet's numbers. 0: not a tunnel.
static __always_inline int outer_length(void *data, void *end, __be16 *inner)
{
	struct ethhdr *eth = data;
	struct iphdr *v4 = (void *)(eth + 1);
	struct ipv6hdr *v6 = (void *)(eth + 1);
	int length = sizeof(*v4);
	__u8 protocol;

	if ((void *)(v4 + 1) > end)
		return 0;
	protocol = v4->protocol;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(v6 + 1) > end)
			return 0;
		length = sizeof(*v6);
		protocol = v6->nexthdr;
	} else if (eth->h_proto != bpf_htons(ETH_P_IP) || v4->ihl != 5) {
		return 0;
	}
	if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = data + sizeof(*eth) + length;
		__u8 *gue = (void *)(udp + 1);
		if ((void *)(gue + 4) > end || udp->dest != bpf_htons(GUE_PORT))
			return 0;
		length += sizeof(*udp) + 4;
		protocol = gue[1];
	} else if (protocol == IPPROTO_GRE) {
		struct gre *gre = data + sizeof(*eth) + length;
		if ((void *)(gre + 1) > end)
			return 0;
		length += gre->flags & bpf_htons(0x8000) ? 8 : 4;
		*inner = gre->protocol;
		return length;
	}
	*inner = protocol == IPPROTO_IPV6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return protocol == IPPROTO_IPV6 || protocol == IPPROTO_IPIP ? length : 0;
}

// Takes the outer headers of IP-in-IP, GUE and GRE off, for real servers on kernels without such devices.
SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	__be16 inner = 0;
	int length = outer_length(eth, end, &inner);

	if (!length)
		return XDP_PASS;

	struct ethhdr saved = *eth;

	if (bpf_xdp_adjust_head(ctx, length))
		return XDP_DROP;
	end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > end)
		return XDP_DROP;
	*eth = saved;
	eth->h_proto = inner;
	return XDP_PASS;
}

// Gives every packet the firewall mark 7 and lets the next program have it.
SEC("tc")
int mark(struct __sk_buff *skb)
{
	skb->mark = 7;
	return -1; // TC_ACT_UNSPEC, TCX_NEXT
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
