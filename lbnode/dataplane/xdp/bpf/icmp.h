/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP to VIPs and about balanced connections (RFC 792; translation of errors: RFC 5508 section 4). */
#ifndef LBNODE_ICMP_H
#define LBNODE_ICMP_H

INLINE int echo_reply(void *ctx, const int hook, const struct packet *p)
{
	void *data = frame(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + (p->header & 0x3c);
	if ((void *)(ip + 1) > frame_end(ctx, hook) || (void *)(icmp + 1) > frame_end(ctx, hook))
		return pass(hook);
	icmp->type = ICMP_ECHO_REPLY;
	csum_replace2(&icmp->checksum, bpf_htons(ICMP_ECHO << 8), bpf_htons(ICMP_ECHO_REPLY << 8));
	__be32 client = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	csum_replace2(&ip->check, bpf_htons(ip->ttl << 8), bpf_htons(64 << 8));
	ip->ttl = 64;
	count(EVENT_ECHO);
	return reflect(ctx, hook);
}

struct quote {
	struct packet packet; /* what stands in the error */
	__u32 at;	      /* offset of the quoted IP header in the frame */
};

/*
 * The quoted header of an ICMP error; only ports of TCP and UDP are needed, which are within the first 8 bytes. Options in
 * the quoted header are passed over.
 */
INLINE bool read_quote(void *ctx, const int hook, const struct packet *p, struct quote *q)
{
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN + (p->header & 0x3c) + ICMP_HEADER;
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return false;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return false;
	q->at = ETH_HLEN + (p->header & 0x3c) + ICMP_HEADER;
	q->packet.header = ip->ihl * 4;
	__be16 *port = (void *)ip + (q->packet.header & 0x3c);
	if ((void *)(port + 4) > end || p->length < p->header + ICMP_HEADER + q->packet.header + QUOTED_L4)
		return false;
	struct tuple *t = &q->packet.tuple;
	addr_set_v4(&t->source, ip->saddr);
	addr_set_v4(&t->target, ip->daddr);
	t->source_port = port[0];
	t->target_port = port[1];
	t->protocol = ip->protocol;
	__builtin_memset(t->reserved, 0, sizeof(t->reserved));
	return true;
}

/* Both checksums follow every 16-bit word of the message that changes. */
INLINE void quote_replace2(struct icmp_header *icmp, __u16 *at, __u16 new)
{
	csum_replace2(&icmp->checksum, *at, new);
	*at = new;
}

/*
 * Translate the quoted packet's source (`source`) or target, and the error's own target (then `source`) or source: the
 * quoted packet runs against the error. The quoted L4 checksum is mended where it is quoted.
 */
INLINE int translate_error(void *ctx, const int hook, const struct packet *p, const struct quote *q, bool source,
			   __be32 new, __be16 new_port)
{
	void *data = frame(ctx, hook), *end = frame_end(ctx, hook);
	struct iphdr *ip = data + ETH_HLEN;
	struct icmp_header *icmp = data + ETH_HLEN + (p->header & 0x3c);
	struct iphdr *inner = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || (void *)(icmp + 1) > end || (void *)(inner + 1) > end)
		return -1;
	__be16 *l4 = (void *)inner + (q->packet.header & 0x3c);
	if ((void *)(l4 + 4) > end)
		return -1;
	const struct tuple *t = &q->packet.tuple;
	__be32 old = source ? t->source.word[3] : t->target.word[3];
	__be16 old_port = source ? t->source_port : t->target_port;
	/* address and header checksum change together: their sum, and so the ICMP checksum, stays */
	ip_set_addr(inner, source, new);
	quote_replace2(icmp, &l4[source ? 0 : 1], new_port);
	__u16 *check = NULL;
	if (t->protocol == IPPROTO_UDP)
		check = l4[3] ? (__u16 *)&l4[3] : NULL;
	else if ((void *)(l4 + 9) <= end &&
		 p->length >= p->header + ICMP_HEADER + q->packet.header + 18) /* the checksum is the ninth word */
		check = (__u16 *)&l4[8];
	if (check) {
		__u16 sum = *check;
		csum_replace4(&sum, old, new);
		csum_replace2(&sum, old_port, new_port);
		if (!sum && t->protocol == IPPROTO_UDP)
			sum = 0xffff;
		quote_replace2(icmp, check, sum);
	}
	ip_set_addr(ip, !source, new);
	ip_decrement_ttl(ip);
	return 0;
}

/* About a packet to a server (masqueraded: it quotes the server's address): goes to the client, from the VIP. */
INLINE int error_to_client(void *ctx, const int hook, const struct packet *p, const struct quote *q, struct place *place)
{
	struct conn *c = place_conn(place);
	struct addr vip = c->in.target;
	__be16 vip_port = c->in.target_port;
	if (!place_unchanged(place) || p->ttl <= 1)
		return drop(hook, EVENT_DROP_TTL);
	struct hop hop;
	find_hop(ctx, hook, &hop, vip.word[3], p->tuple.target.word[3], p->tos, p->length);
	if (hop.result == HOP_TOO_BIG)
		return drop(hook, EVENT_DROP_TOO_BIG);
	if (translate_error(ctx, hook, p, q, false, vip.word[3], vip_port))
		return drop(hook, EVENT_DROP_ERROR);
	count(EVENT_ICMP_TRANSLATED);
	return emit(ctx, hook, &hop, true);
}

/* About a reply (it quotes the VIP): goes to the connection's server, by its forwarding method. */
INLINE int error_to_server(void *ctx, const int hook, const struct packet *p, const struct quote *q,
			   const struct server *server)
{
	if (p->ttl <= 1)
		return drop(hook, EVENT_DROP_TTL);
	struct hop hop;
	server_hop(ctx, hook, p, server, &hop);
	if (hop.result == HOP_TOO_BIG)
		return drop(hook, EVENT_DROP_TOO_BIG);
	int failed;
	if (server->forward == FORWARD_MASQUERADE)
		failed = translate_error(ctx, hook, p, q, true, server->address.word[3], server->port);
	else if (server->forward == FORWARD_TUNNEL)
		failed = encapsulate(ctx, hook, p, server);
	else
		failed = hop.result == HOP_STACK ? 0 : decrement_ttl(ctx, hook);
	if (failed)
		return drop(hook, EVENT_DROP_ERROR);
	count(EVENT_ICMP_TRANSLATED);
	return emit(ctx, hook, &hop, server->forward != FORWARD_DIRECT);
}

INLINE int process_error(void *ctx, const int hook, const struct packet *p)
{
	struct config *config = get_config();
	struct quote quote;
	if (!config || !read_quote(ctx, hook, p, &quote))
		return pass(hook);
	struct tuple turned;
	struct place place = {};
	tuple_reverse(&turned, &quote.packet.tuple);
	__u64 hash = tuple_hash(&turned, config->seed);
	if (conn_find(&turned, hash, &place)) {
		struct server *server = get_server(place.server, place.generation);
		return server ? error_to_server(ctx, hook, p, &quote, server) : pass(hook);
	}
	if (conn_find_reply(&turned, hash, &place))
		return error_to_client(ctx, hook, p, &quote, &place);
	return pass(hook);
}

INLINE int process_icmp(void *ctx, const int hook, const struct packet *p)
{
	struct icmp_header *icmp = frame(ctx, hook) + ETH_HLEN + (p->header & 0x3c);
	if (p->length < p->header + ICMP_HEADER || (void *)(icmp + 1) > frame_end(ctx, hook))
		return pass(hook);
	switch (icmp->type) {
	case ICMP_ECHO:
		return icmp->code == 0 && is_vip(&p->tuple.target) ? echo_reply(ctx, hook, p) : pass(hook);
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		return process_error(ctx, hook, p);
	default:
		return pass(hook);
	}
}

#endif
