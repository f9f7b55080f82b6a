// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The balancer: one core, entered from XDP and from tcx. Maps, programs and their arguments: lb.h. */
#include "capture.h"
#include "forward.h"
#include "fragment.h"
#include "inspect.h"
#include "lease_out.h"
#include "packet6.h"
#include "successor.h"
#include "sweep.h"
#include "sync.h"
#include "syn_proxy.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What kind of packet the frame carries; memory->packet is filled. */
INLINE int read_packet(void *ctx, const int hook, struct scratch *memory)
{
	struct ethhdr *eth = frame(ctx, hook);
	void *end = frame_end(ctx, hook);
	struct packet *p = &memory->packet;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end)
		return KIND_OTHER;
	if (unlikely(eth->h_proto != bpf_htons(ETH_P_IP)))
		return eth->h_proto == bpf_htons(ETH_P_IPV6) ? call_read_ip6(ctx, hook, memory) : KIND_OTHER;
	int kind = parse_ip(ip, end, frame_len(ctx, hook) - ETH_HLEN, p);
	if (likely(kind == KIND_L4 || kind == KIND_FIRST_FRAGMENT))
		kind = parse_l4(ip, end, p, 4, kind);
	return kind == KIND_ICMP ? parse_icmp(ip, end, p) : kind;
}

/* A packet that is not balanced, while it is before the network stack: is it about a VIP without lease? */
INLINE int guard(void *ctx, const int hook, struct scratch *memory)
{
	struct ethhdr *eth = frame(ctx, hook);
	void *end = frame_end(ctx, hook);
	if ((void *)(eth + 1) > end)
		return pass(hook);
	if (asks_for_dark(eth, end, memory->packet.now))
		return drop(hook, EVENT_DROP_SOLICITATION);
	return goes_to_dark(eth, end, memory->packet.now) ? drop(hook, EVENT_DROP_NO_LEASE) : pass(hook);
}
RARE(guard)

INLINE int balance(void *ctx, const int hook, struct scratch *memory)
{
	struct packet *p = &memory->packet;
	p->now = lease_now(&memory->clock);
	p->kind = read_packet(ctx, hook, memory);
	p->mark = is_xdp(hook) ? 0 : ((struct __sk_buff *)ctx)->mark;
	if (capturing)
		call_capture_begin(ctx, hook, memory);
	if (unlikely(p->kind != KIND_L4)) {
		int verdict = call_guard(ctx, hook, memory);
		if (verdict != pass(hook))
			return verdict;
	}
	switch (p->kind) {
	case KIND_L4:
	case KIND_FIRST_FRAGMENT:
		memory->action = decide(p, &memory->decision, CONFIG_INSPECT);
		if (unlikely(memory->action == ACTION_INSPECT))
			memory->action = call_inspect(ctx, hook, memory);
		if (unlikely(memory->action == ACTION_AGAIN))
			memory->action = decide(p, &memory->decision, 0);
		if (unlikely(memory->action == ACTION_AGAIN))
			memory->action = ACTION_ADMIT;
		break;
	case KIND_FRAGMENT:
		memory->action = recall_fragment(memory);
		break;
	case KIND_ICMP_ERROR:
		memory->action = decide_error(p, &memory->decision);
		break;
	case KIND_ICMP_ECHO:
		return is_vip(&p->tuple.target) ? call_echo_reply(ctx, hook, memory) : pass(hook);
	case KIND_MALFORMED:
		return is_vip(&p->tuple.target) ? drop(hook, p->malformed) : pass(hook);
	default:
		return pass(hook);
	}
	if (unlikely(memory->action == ACTION_ADMIT || memory->action == ACTION_PASS)) {
		if (unlikely(has_successor()))
			return succeed(ctx, hook, memory);
		if (memory->action == ACTION_ADMIT)
			memory->action = admit(memory);
	}
	if (unlikely(memory->action >= ACTION_ANSWER_SYN))
		memory->action = syn_proxy(ctx, hook, memory);
	if (unlikely(memory->action == ACTION_AGAIN))
		memory->action = decide_again(memory);
	if (unlikely(p->kind == KIND_FIRST_FRAGMENT))
		remember_fragment(memory);

	int verdict;
	memory->answer.reason = REASON_NONE;
	switch (memory->action) {
	case ACTION_TO_SERVER:
	case ACTION_TO_CLIENT:
		verdict = likely(p->family == 4) ? forward(ctx, hook, memory, 4) : call_forward6(ctx, hook, memory);
		break;
	case ACTION_REFUSE:
		verdict = refuse(hook, memory, &p->tuple.target, REASON_NO_SERVER, 0);
		break;
	case ACTION_TTL:
		verdict = refuse(hook, memory, &p->tuple.target, REASON_TTL, 0);
		break;
	case ACTION_DROP:
		return dropped(hook);
	case ACTION_REFLECT:
		return reflect(ctx, hook);
	default:
		return pass(hook);
	}
	return unlikely(memory->answer.reason) ? call_send_answer(ctx, hook, memory) : verdict;
}

INLINE int process(void *ctx, const int hook)
{
	struct scratch *memory = get_scratch();
	if (!memory)
		return pass(hook);
	if (hook == HOOK_TC)
		return with_capture(ctx, hook, memory, balance(ctx, hook, memory));
	memory->vlan = 0;
	if (unlikely(is_tagged(ctx)) && untag(ctx, memory))
		return XDP_PASS;
	int verdict = with_capture(ctx, hook, memory, balance(ctx, hook, memory));
	if (likely(!memory->vlan))
		return verdict;
	memory->verdict = verdict;
	return tag(ctx, memory);
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

/* Not to this host's own MAC address: whether to that of a virtual router. */
INLINE bool is_routers(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame(skb, HOOK_TC);
	return (void *)(eth + 1) <= frame_end(skb, HOOK_TC) && to_virtual_router(eth);
}

/* To everybody, so nothing to balance; but it may ask for a VIP. */
INLINE int asked_for(struct __sk_buff *skb)
{
	struct ethhdr *eth = frame(skb, HOOK_TC);
	void *end = frame_end(skb, HOOK_TC);
	if ((void *)(eth + 1) > end || !asks_for_dark(eth, end, bpf_ktime_get_boot_ns()))
		return TC_NEXT;
	return drop(HOOK_TC, EVENT_DROP_SOLICITATION);
}

SEC("tc")
int tc_lb(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return TC_NEXT;
	void *data = frame(skb, HOOK_TC), *end = frame_end(skb, HOOK_TC);
	if (data + LINEAR > end) {
		__u32 want = skb->len < LINEAR ? skb->len : LINEAR;
		if (data + want > end && skb->gso_size != GSO_BY_FRAGS && bpf_skb_pull_data(skb, want))
			return TC_NEXT;
	}
	if (unlikely(skb->pkt_type != PACKET_HOST) && !is_routers(skb))
		return asked_for(skb);
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
