"""What members of a VIP group tell each other by unicast over the synchronisation network, beside VRRP. Pure.

An Active sends a copy of each advertisement, so that a broken multicast path alone moves nothing. Every member says in
each interval whom it hears ("I hear you"), so that a one-way path is noticed by the side that is heard. One UDP
datagram for each group and peer, all fields big-endian:

    0  magic "LE"   2  version 1   3  key id
    4  incarnation u64: random, new at each start of the sender   12  sequence u64: grows by one
   20  echo of the addressee's incarnation u64 and newest sequence u64 that the sender heard; 0 0 = none
   36  epoch u64 of the sender's ownership, 0 = none or not known   44  priority
   45  flags: 1 active, 2 connected, 4 gateway
   46  VRRP address of the sender: IP version, 16 bytes
   63  length of group name, of node name, of successor's name, of copied message u16   68  the four   ..  tag 16

The tag is HMAC-SHA256 over all before it, truncated. A new incarnation is believed once it echoes a sequence that we
sent lately: a recording cannot do that.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from lbnode.election.packet import TTL, Datagram, Reason, Rejected, group_of
from lbnode.model import Address

_HEADER = struct.Struct("!2sBBQQQQQBBB16sBBBH")
_MAGIC, _VERSION = b"LE", 1
_TAG_LEN = 16
_REMEMBERED = 64  # sequences of ours of which we know when they left


@dataclass(frozen=True, slots=True)
class Beat:
    group: str
    node: str
    source: Address  # VRRP address of the sender, in the group's first family
    active: bool
    connected: bool  # the sender hears the gateway, or members beside the addressee
    gateway: bool  # the sender hears the gateway
    priority: int
    epoch: int
    incarnation: int
    sequence: int
    echo: tuple[int, int]  # the addressee's incarnation and sequence
    message: bytes  # VRRP message with trailer, as sent by multicast; empty when the sender is not Active
    successor: str = ""  # whom the sender is about to hand over to

    @property
    def copy(self) -> Datagram | None:
        """The advertisement as if it had come by multicast."""
        return Datagram(self.source, group_of(self.source), TTL, self.message) if self.message else None


def encode(beat: Beat, key_id: int, key: bytes) -> bytes:
    group, node, successor = beat.group.encode(), beat.node.encode(), beat.successor.encode()
    identity = (
        beat.incarnation,
        beat.sequence,
        *beat.echo,
        beat.epoch,
        beat.priority,
        beat.active | beat.connected << 1 | beat.gateway << 2,
    )
    source = (beat.source.version, beat.source.packed.ljust(16, b"\0"))
    lengths = (len(group), len(node), len(successor), len(beat.message))
    data = (
        _HEADER.pack(_MAGIC, _VERSION, key_id, *identity, *source, *lengths) + group + node + successor + beat.message
    )
    return data + _tag(key, data)


def decode(data: bytes, keys: Mapping[int, bytes]) -> Beat:
    """Raises Rejected; whatever the bytes are, nothing else."""
    if len(data) < _HEADER.size + _TAG_LEN:
        raise Rejected(Reason.LENGTH, f"heartbeat of {len(data)} bytes")
    magic, version, key_id, *fields = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise Rejected(Reason.VERSION, f"heartbeat of another version or none: {data[:3].hex()}")
    if key_id not in keys:
        raise Rejected(Reason.KEY, f"heartbeat with the unknown key {key_id}")
    if not hmac.compare_digest(_tag(keys[key_id], data[:-_TAG_LEN]), data[-_TAG_LEN:]):
        raise Rejected(Reason.SIGNATURE, f"heartbeat with a wrong tag: key {key_id} differs, or it is forged")
    (incarnation, sequence, *echo, epoch), (priority, flags, family, packed, *lengths) = fields[:5], fields[5:]
    body = data[_HEADER.size : -_TAG_LEN]
    if len(body) != sum(lengths) or family not in (4, 6):
        raise Rejected(Reason.LENGTH, "heartbeat with lengths that do not fit")
    try:
        group, node, successor = (_cut(body, lengths, number).decode() for number in range(3))
    except UnicodeDecodeError:
        raise Rejected(Reason.LENGTH, "heartbeat with a name that is not UTF-8") from None
    source = IPv4Address(packed[:4]) if family == 4 else IPv6Address(packed)
    told = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, priority, epoch)
    return Beat(
        group, node, source, *told, incarnation, sequence, (echo[0], echo[1]), _cut(body, lengths, 3), successor
    )


def _cut(body: bytes, lengths: list[int], number: int) -> bytes:
    """The field of that number."""
    start = sum(lengths[:number])
    return body[start : start + lengths[number]]


def _tag(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:_TAG_LEN]


class Conversation:
    """With one peer about one group. Times in ns of one monotonic clock."""

    def __init__(self, incarnation: int, now: int = 0) -> None:
        """`incarnation`: random, of this process."""
        self.began_at = now
        self.heard: Beat | None = None  # the newest one
        self._incarnation = incarnation
        self._sequence = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)  # sequence, when
        self._echo = (0, 0)
        self._heard_at = 0
        self._hearing_since = 0
        self._heard_us_at = 0  # when that left which the peer heard last

    def next(self, now: int) -> tuple[int, int, tuple[int, int]]:
        """(incarnation, sequence, echo) of the beat that is sent now."""
        self._sequence += 1
        self._sent.append((self._sequence, now))
        return self._incarnation, self._sequence, self._echo

    def receive(self, beat: Beat, now: int, silence: int) -> None:
        """Take a beat of the peer, whose tag was checked. After `silence` ns without one hearing begins anew.

        Raises Rejected for one that came already, or of an incarnation that has not answered us yet.
        """
        incarnation, sequence = beat.echo
        sent_at = next(
            (at for number, at in self._sent if (self._incarnation, number) == (incarnation, sequence)), None
        )
        known, newest = self._echo if self.heard is not None else (0, 0)
        if known == beat.incarnation:
            if beat.sequence <= newest:
                raise Rejected(Reason.REPLAY, f"an older heartbeat of {beat.node} came again")
        elif sent_at is None:
            if not self.hears(now, silence):  # else it may be a recording: the one we know goes on
                self._echo, self.heard = (beat.incarnation, beat.sequence), None  # it can answer that
            raise Rejected(Reason.STALE, f"a heartbeat of {beat.node} from before it heard us")
        if self.heard is None or now - self._heard_at > silence:
            self._hearing_since = now
        self._echo, self.heard, self._heard_at = (beat.incarnation, beat.sequence), beat, now
        if sent_at is not None:
            self._heard_us_at = max(self._heard_us_at, sent_at)

    def released(self) -> None:
        """The peer has said by VRRP that it is not Active any more; its heartbeat that says so is on its way."""
        if self.heard is not None:
            self.heard = replace(self.heard, active=False)

    @property
    def heard_active(self) -> bool:
        """The peer says that it is Active."""
        return self.heard is not None and self.heard.active

    def hears(self, now: int, within: int) -> bool:
        """The peer was heard within the last `within` ns."""
        return self.heard is not None and now - self._heard_at <= within

    def is_heard(self, now: int, within: int) -> bool:
        """The peer has heard us, and said so, within the last `within` ns."""
        return self.hears(now, within) and now - self._heard_us_at <= within

    def is_deaf(self, now: int, within: int) -> bool:
        """The peer is heard all the time, and says that it has not heard us for `within` ns."""
        return self.hears(now, within) and now - max(self._heard_us_at, self._hearing_since) > within
