"""Datagrams of the connection synchronisation <-> bytes, authenticated. Pure.

All fields big-endian. Every datagram is self-delimiting and ends with a 16-byte tag: HMAC-SHA256 over all before it,
truncated (RFC 2104 section 5).

    0  magic "LB"   2  version 2   3  type   4  body length u16   6  reserved u16 (0)
    8  stream u64: random, new at each start of the sender
   16  counter u64: grows by one with each datagram of the stream, also when content is sent again (replay window)
   24  body   ...   tag 16

Bodies:
    HELLO    echo u64 | ack u64 | first u64 | next u64 | bulk_wanted u32 | record_size u16 | layout 8 | name (UTF-8)
    ACK      ack u64 | n x (missing_from u64, missing_to u64), both inclusive
    RECORDS  seq u64 | epoch u64 | confirmed u8 | length of group name u8 | group name (UTF-8) | whole records
    BULK_END seq u64 | request u32

Version 1 had no epochs. A node that speaks another version is refused: half a fence would fence nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from lbnode.epochs import Label
from lbnode.errors import PeerError

MAGIC = b"LB"
VERSION = 2
TAG_SIZE = 16
# Fits one Ethernet frame of 1500 bytes together with IPv6 (40) and UDP (8).
MAX_DATAGRAM = 1400

_HEADER = struct.Struct("!2sBBHHQQ")
_HELLO = struct.Struct("!QQQQIH8s")
_SEQ = struct.Struct("!Q")
_RECORDS = struct.Struct("!QQ?B")
_BULK_END = struct.Struct("!QI")
_RANGE = struct.Struct("!QQ")

TYPE_HELLO, TYPE_ACK, TYPE_RECORDS, TYPE_BULK_END = 1, 2, 3, 4
MAX_BODY = MAX_DATAGRAM - _HEADER.size - TAG_SIZE
MAX_RANGES = 32


@dataclass(frozen=True, slots=True)
class Hello:
    """Greeting, heartbeat and flow state in one. `echo` is the peer's stream as last heard (0 = none yet): a stream
    is believed only after it echoed ours, so a recorded conversation cannot be played back to us."""

    echo: int
    ack: int  # all sequence numbers up to this one were received
    first: int  # lowest sequence number that can still be sent again
    next: int  # sequence number of the next new datagram
    bulk_wanted: int  # number of the sender's bulk request; 0 = none open
    record_size: int
    layout: bytes  # 8 bytes, see layout_id
    name: str


@dataclass(frozen=True, slots=True)
class Ack:
    ack: int
    missing: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Records:
    seq: int
    group: str  # the VIP group of their virtual addresses; "" = of none
    label: Label
    data: bytes


@dataclass(frozen=True, slots=True)
class BulkEnd:
    seq: int
    request: int


Body = Hello | Ack | Records | BulkEnd


@dataclass(frozen=True, slots=True)
class Datagram:
    stream: int
    counter: int
    body: Body


class OtherVersion(PeerError):
    """An authentic datagram of another version of this protocol."""


def layout_id(layout: str) -> bytes:
    """8 bytes that two nodes compare instead of the layout's name."""
    return hashlib.sha256(layout.encode()).digest()[:8]


def room_for_records(group: str) -> int:
    """Bytes of records that one datagram carries."""
    return MAX_BODY - _RECORDS.size - len(group.encode())


def encode(datagram: Datagram, key: bytes) -> bytes:
    kind, body = _encode_body(datagram.body)
    head = _HEADER.pack(MAGIC, VERSION, kind, len(body), 0, datagram.stream, datagram.counter)
    return b"".join((head, body, _tag(head + body, key)))


def decode(data: bytes, key: bytes) -> Datagram:
    """PeerError with the reason if anything at all is wrong with `data`."""
    if len(data) < _HEADER.size + TAG_SIZE:
        raise PeerError(f"truncated: {len(data)} bytes")
    magic, version, kind, length, _, stream, counter = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise PeerError("not a synchronisation datagram")
    if len(data) != _HEADER.size + length + TAG_SIZE:
        raise PeerError(f"length {len(data)} does not match the header's {_HEADER.size + length + TAG_SIZE}")
    if not hmac.compare_digest(_tag(data[:-TAG_SIZE], key), data[-TAG_SIZE:]):
        raise PeerError("authentication failed: do both nodes have the same [sync] key?")
    if version != VERSION:
        raise OtherVersion(f"speaks version {version} of the synchronisation, this node version {VERSION}")
    try:
        return Datagram(stream, counter, _decode_body(kind, data[_HEADER.size : -TAG_SIZE]))
    except (struct.error, UnicodeDecodeError) as error:
        raise PeerError(f"malformed body of type {kind}: {error}") from error


def _tag(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")[:TAG_SIZE]


def _encode_body(body: Body) -> tuple[int, bytes]:
    match body:
        case Hello():
            fixed = _HELLO.pack(
                body.echo, body.ack, body.first, body.next, body.bulk_wanted, body.record_size, body.layout
            )
            return TYPE_HELLO, fixed + body.name.encode()
        case Ack():
            ranges = b"".join(_RANGE.pack(*missing) for missing in body.missing[:MAX_RANGES])
            return TYPE_ACK, _SEQ.pack(body.ack) + ranges
        case Records():
            group = body.group.encode()
            return TYPE_RECORDS, _RECORDS.pack(body.seq, *body.label, len(group)) + group + body.data
        case BulkEnd():
            return TYPE_BULK_END, _BULK_END.pack(body.seq, body.request)


def _decode_body(kind: int, data: bytes) -> Body:
    if kind == TYPE_HELLO:
        echo, ack, first, next_seq, bulk_wanted, record_size, layout = _HELLO.unpack_from(data)
        return Hello(echo, ack, first, next_seq, bulk_wanted, record_size, layout, data[_HELLO.size :].decode())
    if kind == TYPE_ACK:
        (ack,) = _SEQ.unpack_from(data)
        return Ack(ack, tuple(_RANGE.iter_unpack(data[_SEQ.size :])))
    if kind == TYPE_RECORDS:
        seq, epoch, confirmed, length = _RECORDS.unpack_from(data)
        records_at = _RECORDS.size + length
        if records_at > len(data):
            raise PeerError(f"malformed body of type {kind}: a group name of {length} bytes")
        group = data[_RECORDS.size : records_at].decode()
        return Records(seq, group, Label(epoch, confirmed), data[records_at:])
    if kind == TYPE_BULK_END:
        return BulkEnd(*_BULK_END.unpack(data))
    raise PeerError(f"unknown type {kind}")


class ReplayWindow:
    """Accepts each counter above `start` once; anything `size` or more behind the newest is refused (as RFC 6479)."""

    def __init__(self, start: int = 0, size: int = 1024) -> None:
        self._size = size
        self._newest = start
        self._seen = (1 << size) - 1  # bit i: newest - i was seen

    def accept(self, counter: int) -> bool:
        if counter > self._newest:
            shift = min(counter - self._newest, self._size)
            self._seen = ((self._seen << shift) | 1) & ((1 << self._size) - 1)
            self._newest = counter
            return True
        bit = 1 << (self._newest - counter) if self._newest - counter < self._size else 0
        if not bit or self._seen & bit:
            return False
        self._seen |= bit
        return True
