// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The balancer: one core, entered from XDP and from tcx. Maps, programs and their arguments: lb.h. */
#include "forward.h"
#include "sweep.h"
#include "sync.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

INLINE int process(void *ctx, const int hook)
{
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return pass(hook);
	struct scratch *memory = get_scratch();
	if (!memory)
		return pass(hook);
	struct packet *p = &memory->packet;
	p->kind = parse_ip(ip, end, frame_len(ctx, hook) - ETH_HLEN, p);
	if (likely(p->kind == KIND_L4))
		p->kind = parse_l4(ip, end, p);
	if (p->kind == KIND_ICMP)
		p->kind = parse_icmp(ip, end, p);

	struct decision *d = &memory->decision;
	int action;
	switch (p->kind) {
	case KIND_L4:
		action = decide(p, d);
		break;
	case KIND_ICMP_ERROR:
		action = decide_error(p, d);
		break;
	case KIND_ICMP_ECHO:
		return is_vip(&p->tuple.target) ? echo_reply(ctx, hook, p) : pass(hook);
	case KIND_FRAGMENT:
		if (is_vip(&p->tuple.target))
			count(EVENT_FRAGMENT);
		return pass(hook);
	case KIND_MALFORMED:
		return is_vip(&p->tuple.target) ? drop(hook, EVENT_DROP_MALFORMED) : pass(hook);
	default:
		return pass(hook);
	}

	struct answer answer = {};
	struct server *server = NULL;
	int verdict;
	switch (action) {
	case ACTION_TO_SERVER:
		server = get_server(d->server, d->generation);
		if (!server)
			return drop(hook, EVENT_DROP_SERVER_GONE);
		verdict = forward(ctx, hook, memory, server, &answer);
		break;
	case ACTION_TO_CLIENT:
		verdict = forward(ctx, hook, memory, NULL, &answer);
		break;
	case ACTION_REFUSE:
		verdict = refuse(hook, &answer, p->tuple.target.word[3], ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0);
		break;
	case ACTION_DROP:
		return is_xdp(hook) ? XDP_DROP : TC_DROP;
	default:
		return pass(hook);
	}
	return unlikely(answer.type) ? icmp_send(ctx, hook, p, &answer) : verdict;
}

/* Whether a frame is for this host is left to the NIC's address filter; at tcx the kernel has looked (pkt_type). */
SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	return process(ctx, HOOK_XDP);
}

SEC("xdp.frags")
int xdp_lb_frags(struct xdp_md *ctx)
{
	return process(ctx, HOOK_XDP_FRAGS);
}

/* Headers must lie in the linear part of the buffer: Ethernet, IP with options, ICMP, a quoted IP header, its L4. */
#define LINEAR (ETH_HLEN + 60 + 8 + 60 + 20)

SEC("tc")
int tc_lb(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_NEXT;
	void *data = frame(skb, HOOK_TC), *end = frame_end(skb, HOOK_TC);
	if (data + LINEAR > end) {
		__u32 want = skb->len < LINEAR ? skb->len : LINEAR;
		if (data + want > end && bpf_skb_pull_data(skb, want))
			return TC_NEXT;
	}
	return process(skb, HOOK_TC);
}

SEC("tc")
int tc_behind_xdp(struct __sk_buff *skb)
{
	struct handover *handover = (void *)(long)skb->data_meta;
	if ((void *)(handover + 1) > (void *)(long)skb->data || handover->magic != HANDOVER_MAGIC)
		return TC_NEXT;
	handover->magic = 0;
	return redirect_neighbour(handover->ifindex, handover->family, handover->gateway);
}
