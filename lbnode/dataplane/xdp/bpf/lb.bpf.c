// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The balancer: one core, entered from XDP and from tcx. Maps, programs and their arguments: lb.h. */
#include "forward.h"
#include "sched.h"
#include "track.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

INLINE bool is_vip(const struct addr *address)
{
	return bpf_map_lookup_elem(&vips, address) != NULL;
}

INLINE bool is_tcp(const struct packet *p)
{
	return p->tuple.protocol == IPPROTO_TCP;
}

INLINE __u32 event_of(const struct packet *p)
{
	return is_tcp(p) ? tcp_event_of(p->tcp_flags) : TCP_NOTHING;
}

INLINE struct service *find_service(const struct tuple *t)
{
	struct service_key key = {
		.address = t->target, .port = t->target_port, .protocol = t->protocol, .family = 4};
	return bpf_map_lookup_elem(&services, &key);
}

/* A connection that is not in the table yet, entered into it. 0, or -1: no room. */
INLINE int enter(const struct packet *p, const struct server *server, __u32 index, const struct config *config,
		 const struct clock *clock, __u64 hash)
{
	bool masquerade = server->forward == FORWARD_MASQUERADE;
	struct new_conn new = {.hash = hash};
	struct conn *c = &new.conn;
	c->in = p->tuple;
	tuple_reverse(&c->out, &p->tuple);
	c->out.source = server->address;
	if (masquerade)
		c->out.source_port = server->port;
	c->server = index;
	c->generation = server->generation;
	c->last_ms = clock->now_ms;
	c->forward = server->forward;
	new.state = STATE_UDP;
	if (is_tcp(p))
		new.state = tcp_next(masquerade ? DIRECTION_IN : DIRECTION_IN_ONLY, event_of(p), STATE_NONE);
	if (new.state == STATE_NONE)
		new.state = STATE_CLOSE;
	new.flags = (masquerade ? 0 : CONN_NO_OUTPUT) | (state_active(new.state) ? 0 : CONN_INACTIVE);
	return conn_add(&new);
}

/* No entry: is it the beginning of a connection to a service? */
INLINE int new_connection(void *ctx, const int hook, const struct packet *p, const struct config *config,
			  const struct clock *clock, __u64 hash)
{
	struct service *service = find_service(&p->tuple);
	if (!service)
		return pass(hook);
	if (is_tcp(p) && (p->tcp_flags & TCP_FLAG_RST || !(p->tcp_flags & TCP_FLAG_SYN || hash_scheduler(service)))) {
		count(EVENT_NO_CONNECTION);
		return pass(hook);
	}
	__u32 index = schedule(service, &p->tuple);
	struct server *server = bpf_map_lookup_elem(&servers, &index);
	if (index == NO_SERVER || !server || !server->generation) {
		count(EVENT_DROP_NO_SERVER);
		return icmp_send(ctx, hook, p, p->tuple.target.word[3], ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0);
	}
	if (enter(p, server, index, config, clock, hash)) {
		if (!hash_scheduler(service) || server->forward == FORWARD_MASQUERADE)
			return drop(hook, EVENT_DROP_TABLE_FULL);
		count(EVENT_UNTRACKED);
	}
	account(index, server, true, p->length, 1);
	return to_server(ctx, hook, p, server);
}

/* TCP and UDP. */
INLINE int balance(void *ctx, const int hook, const struct packet *p)
{
	struct config *config = get_config();
	struct clock *clock = get_clock();
	if (!config || !clock)
		return pass(hook);
	__u64 hash = tuple_hash(&p->tuple, config->seed);
	__u32 now = clock->now_ms;
	bool syn = is_tcp(p) && p->tcp_flags & TCP_FLAG_SYN;
	struct place place;
	if (likely(conn_find(&p->tuple, hash, &place))) {
		struct conn *c = place_conn(&place);
		struct server *server = get_server(place.server, place.generation);
		bool reuse = syn && word_state(place.word) == STATE_TIME_WAIT; /* IPVS: conn_reuse_mode 1 */
		if (likely(server && !reuse && !conn_expired(config, c, place.word, now))) {
			__u32 direction = word_flags(place.word) & CONN_NO_OUTPUT ? DIRECTION_IN_ONLY : DIRECTION_IN;
			track(&place, config, server, direction, event_of(p), now);
			account(place.server, server, true, p->length, 0);
			return to_server(ctx, hook, p, server);
		}
		conn_remove(&place, config->seed);
		if (!server && is_tcp(p) && !syn)
			return drop(hook, EVENT_DROP_SERVER_GONE);
	} else if (conn_find_reply(&p->tuple, hash, &place)) {
		struct conn *c = place_conn(&place);
		struct server *server = get_server(place.server, place.generation);
		if (likely(server && !conn_expired(config, c, place.word, now))) {
			struct addr vip = c->in.target;
			__be16 vip_port = c->in.target_port;
			if (!place_unchanged(&place))
				return drop(hook, EVENT_DROP_SERVER_GONE);
			track(&place, config, server, DIRECTION_OUT, event_of(p), now);
			account(place.server, server, false, p->length, 0);
			return to_client(ctx, hook, p, &vip, vip_port);
		}
		conn_remove(&place, config->seed);
		if (!server)
			return drop(hook, EVENT_DROP_SERVER_GONE);
	}
	return new_connection(ctx, hook, p, config, clock, hash);
}

#include "icmp.h"

INLINE int process(void *ctx, const int hook)
{
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return pass(hook);
	struct packet p;
	int kind = parse_ip(ip, end, frame_len(ctx, hook) - ETH_HLEN, &p);
	if (likely(kind == KIND_L4))
		kind = parse_l4(ip, end, &p);
	switch (kind) {
	case KIND_L4:
		return balance(ctx, hook, &p);
	case KIND_ICMP:
		return process_icmp(ctx, hook, &p);
	case KIND_FRAGMENT:
		if (is_vip(&p.tuple.target))
			count(EVENT_FRAGMENT);
		return pass(hook);
	case KIND_MALFORMED:
		return is_vip(&p.tuple.target) ? drop(hook, EVENT_DROP_MALFORMED) : pass(hook);
	default:
		return pass(hook);
	}
}

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	return process(ctx, HOOK_XDP);
}

SEC("xdp.frags")
int xdp_lb_frags(struct xdp_md *ctx)
{
	return process(ctx, HOOK_XDP);
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

#include "sweep.h"
#include "sync.h"
