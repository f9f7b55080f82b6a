"""Version of the layout, and sizes of the maps: limits, and bytes of keys and values."""

from __future__ import annotations

import struct

LAYOUT_VERSION = 15
BUCKET_WAYS = 8
REPLY_BUCKETS = 2  # of map `replies` for each of the connection table
SLOT_EMPTY = 0xFFFFFFFF
MAX_SERVERS_PER_SERVICE = 65535
SH_SLOTS = 256  # of sh and dh
GROUP_MEMBERS = 16
ALL_BITS = (1 << 128) - 1
LEASES_MAX = 1024
LEASE_OF_TARGET = 0xFFFF
# Maps that an instance of the program has for itself.
UNPINNED = frozenset({"capture", "captured", "capture_state", "reply_hops", "merging"})
POOL_ADDRESSES = 16

SERVICE_KEY_SIZE = 24
SERVICE_SIZE = 104
SERVER_SIZE = 104
POOL_SIZE = 272
GROUP_SIZE = 80
VIP_SIZE = 16
CONFIG_SIZE = 160
TIMEOUTS_SIZE = 64
STATS_SIZE = 40
ADMISSION_SIZE = 80
GAUGE_SIZE = 16
HALF_OPEN_SIZE = 8
META_SIZE = 8
CLOCK_SIZE = 16
SWEEP_ARGS_SIZE = 8
BUCKET_SIZE = 960
REPLY_BUCKET_SIZE = 64
ENTRY_BYTES = (BUCKET_SIZE + REPLY_BUCKETS * REPLY_BUCKET_SIZE) // BUCKET_WAYS  # of the connection table


def pack_meta(generation: int = 0) -> bytes:
    """`generation`: the last one that was given to a server."""
    return struct.pack("=II", LAYOUT_VERSION, generation)


def pack_routes(generation: int) -> bytes:
    """Map `routes`. Numbers wrap."""
    return struct.pack("=I", generation & 0xFFFFFFFF)


def unpack_routes(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def unpack_meta(data: bytes) -> int:
    """The layout version; 0 = the maps are new."""
    return int(struct.unpack("=II", data)[0])
