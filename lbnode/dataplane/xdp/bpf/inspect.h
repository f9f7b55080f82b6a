/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is looked at only where the configuration asks for it, because it is legal or costs a look at every byte. */
#ifndef LBNODE_INSPECT_H
#define LBNODE_INSPECT_H

#include "sum.h"

/* Fragment headers are none of the options. */
INLINE bool has_options(const struct packet *p)
{
	if (p->family == 4)
		return p->header > IP_HEADER;
	return p->header > IP6_HEADER + (p->kind == KIND_FIRST_FRAGMENT ? 8 : 0);
}

/*
 * A socket buffer that never was on a wire may leave its checksum to a device: then the field holds the pseudo header's sum,
 * and nothing can have broken the packet. So it is with bundles of segments, whose checksums the kernel looked at.
 */
INLINE bool checksum_pending(void *ctx, const int hook, __u16 check, __u64 pseudo)
{
	return hook == HOOK_TC && (((struct __sk_buff *)ctx)->gso_size || check == fold64(pseudo));
}

/* TCP's and UDP's over the whole packet. UDP's may be left out over IPv4 (RFC 768), but not over IPv6 (RFC 8200 8.1). */
INLINE bool checksum_wrong(void *ctx, const int hook, struct scratch *memory)
{
	const struct packet *p = &memory->packet;
	__u32 length = p->length - p->header, at = ETH_HLEN + p->header;
	bool tcp = p->tuple.protocol == IPPROTO_TCP;
	__u16 check = 0, udp_length = 0;
	if (p->kind != KIND_L4 || (!tcp && p->tuple.protocol != IPPROTO_UDP))
		return false;
	if (load_bytes(ctx, hook, at + (tcp ? TCP_CHECK_AT : UDP_CHECK_AT), &check, sizeof(check)))
		return true;
	if (!tcp && !check)
		return p->family == 6;
	if (!tcp) {
		if (load_bytes(ctx, hook, at + offsetof(struct udphdr, len), &udp_length, sizeof(udp_length)))
			return true;
		length = bpf_ntohs(udp_length); /* the packet may be longer */
	}
	__u64 pseudo = pseudo_sum(&p->tuple.source, &p->tuple.target, length, p->tuple.protocol, p->family == 6);
	if (checksum_pending(ctx, hook, check, pseudo))
		return false;
	if (!sum_bytes(ctx, hook, &memory->sum, at, length))
		return false; /* longer than anything that comes from a wire */
	return fold64(memory->sum.sum + pseudo) != 0xffff;
}

/* A packet that decide() did not look up: is it to a VIP, and as it should be? Returns enum action. */
INLINE int inspect(void *ctx, const int hook, struct scratch *memory)
{
	struct config *config = get_config();
	struct packet *p = &memory->packet;
	if (config && is_vip(&p->tuple.target)) {
		if (config->flags & CONFIG_DROP_IP_OPTIONS && has_options(p))
			return drop_counted(EVENT_DROP_IP_OPTIONS);
		if (config->flags & CONFIG_DROP_BAD_CHECKSUMS && checksum_wrong(ctx, hook, memory))
			return drop_counted(EVENT_DROP_L4_CHECKSUM);
	}
	return decide(p, &memory->decision, 0);
}

RARE(inspect)

#endif
