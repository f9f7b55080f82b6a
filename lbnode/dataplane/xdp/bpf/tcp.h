/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP states of a connection as the gateway sees it: IPVS's machine (net/netfilter/ipvs/ip_vs_proto_tcp.c), so that
 * counters, listings and time-outs agree with it. The gateway knows flags only, no sequence numbers.
 */
#ifndef LBNODE_TCP_H
#define LBNODE_TCP_H

#include "maps.h"

enum direction {
	DIRECTION_IN = 0,      /* from the client */
	DIRECTION_OUT = 1,     /* from the server */
	DIRECTION_IN_ONLY = 2, /* from the client, and replies never pass here */
};

enum tcp_event { TCP_SYN = 0, TCP_FIN = 1, TCP_ACK = 2, TCP_RST = 3, TCP_NOTHING = 4 };

#define NO STATE_NONE
#define ES STATE_ESTABLISHED
#define SS STATE_SYN_SENT
#define SR STATE_SYN_RECV
#define FW STATE_FIN_WAIT
#define TW STATE_TIME_WAIT
#define CL STATE_CLOSE
#define CW STATE_CLOSE_WAIT
#define LA STATE_LAST_ACK
#define LI STATE_LISTEN
#define SA STATE_SYNACK

/* [direction][event][state] -> state; 16 columns keep the index arithmetic a shift. */
/* clang-format off */
static const __u8 tcp_next_state[3][4][16] = {
	[DIRECTION_IN] = {
		/*           NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
		[TCP_SYN] = {SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR},
		[TCP_FIN] = {CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW},
		[TCP_ACK] = {ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES},
		[TCP_RST] = {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR},
	},
	[DIRECTION_OUT] = {
		[TCP_SYN] = {SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR},
		[TCP_FIN] = {TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW},
		[TCP_ACK] = {ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES},
		[TCP_RST] = {CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL},
	},
	[DIRECTION_IN_ONLY] = {
		[TCP_SYN] = {SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR},
		[TCP_FIN] = {CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW},
		[TCP_ACK] = {ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES},
		[TCP_RST] = {CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL},
	},
};
/* clang-format on */

#undef NO
#undef ES
#undef SS
#undef SR
#undef FW
#undef TW
#undef CL
#undef CW
#undef LA
#undef LI
#undef SA

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

/* A segment without any of the four flags changes nothing (IPVS closes on it, which lets anybody close anything). */
INLINE __u32 tcp_event_of(__u8 flags)
{
	if (flags & TCP_FLAG_RST)
		return TCP_RST;
	if (flags & TCP_FLAG_SYN)
		return TCP_SYN;
	if (flags & TCP_FLAG_FIN)
		return TCP_FIN;
	return flags & TCP_FLAG_ACK ? TCP_ACK : TCP_NOTHING;
}

INLINE __u32 tcp_next(__u32 direction, __u32 event, __u32 state)
{
	if (event >= TCP_NOTHING || direction > DIRECTION_IN_ONLY)
		return state;
	return tcp_next_state[direction][event][state & 15];
}

/* What IPVS counts as ActiveConn: opening and open. UDP never is. */
INLINE bool state_active(__u32 state)
{
	return state == STATE_ESTABLISHED || state == STATE_SYN_RECV || state == STATE_SYN_SENT ||
	       state == STATE_SYNACK;
}

#define HALF_OPEN_STATES                                                                                               \
	(1 << STATE_SYN_RECV | 1 << STATE_SYN_SENT | 1 << STATE_SYNACK | 1 << STATE_UDP | 1 << STATE_TEMPLATE)

/* Not proven to be a real conversation: goes first when the table is full. */
INLINE bool state_half_open(__u64 word)
{
	return HALF_OPEN_STATES >> (word & 31) & 1 && !(word >> 8 & CONN_ASSURED);
}

INLINE bool state_finished(__u32 state)
{
	return state == STATE_TIME_WAIT || state == STATE_CLOSE;
}

#endif
