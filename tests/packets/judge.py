"""Judges what became of a frame by the frame alone: with a parser and rules independent of the product and of scapy.

What is sent must be, byte for byte, the frame that came in but for what its way of forwarding may change; checksums are
as right as they were. A packet that neither is for a VIP nor belongs to a known connection must come out as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lbnode.dataplane.xdp.layout import PROTOCOL_NUMBER
from lbnode.dataplane.xdp.records import Record
from lbnode.model import ForwardingMethod
from tests.packets.checksums import GUE_PORT, wrong_checksums
from tests.packets.judge_fragments import Fragments
from tests.packets.judge_fullnat import Ways
from tests.packets.judge_link import Link
from tests.packets.mutations import ONES, words
from tests.packets.seeds import Target
from tests.packets.view import (
    ERRORS,
    L4_CHECKSUM,
    SOURCE,
    TARGET,
    View,
    broken,
    l4_sum,
    rewritten,
    right,
    untagged,
    view,
)

OTHER_QUOTE = "quotes something else"


@dataclass
class Judge:
    targets: dict[tuple[int, bytes, int], Target]
    link: Link
    # (protocol, server, its port, client, its port) of all that asked for masquerade: where it came to
    known: dict[tuple[int, bytes, bytes, bytes, bytes], Target] = field(default_factory=dict)
    vips: set[bytes] = field(init=False)
    servers: dict[bytes, Target] = field(init=False)
    ways: Ways = field(init=False)  # of full NAT
    fragments: Fragments = field(default_factory=Fragments)
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ways = Ways(self.targets)
        self.vips = {target.vip for target in self.targets.values()}
        self.servers = {target.server: target for target in self.targets.values()}

    def ours(self, frame: bytes, packet: bytes, before: View | None) -> bool:
        """Whether the node has any business with a frame and the packet in it; what the Ethernet header says counts."""
        kind = frame[-len(packet) - 2 : -len(packet)]
        target = packet[16:20] if kind == b"\x08\x00" else packet[24:40] if kind == b"\x86\xdd" else b""
        if target in self.vips:
            return True
        if before is None:
            return False
        if before.protocol in ERRORS and packet[before.at : before.at + 1] and not before.fragment:
            return self.quotes_known(packet, before)
        return self.connection(packet, before) is not None

    def connection(self, packet: bytes, one: View) -> Target | None:
        """Of a server's packet: the connection it answers; of a later fragment: the server's address must do."""
        if one.fragment == 2:
            return self.servers.get(one.source)
        ports = packet[one.at : one.at + 4]
        key = (one.protocol, one.source, ports[:2], one.target, ports[2:])
        return self.known.get(key) or self.ways.target(key)

    def quotes_known(self, packet: bytes, before: View) -> bool:
        quote = packet[before.at + 8 :]
        inner = view(quote)
        if inner is None or inner.fragment == 2:
            return False
        ports = quote[inner.at : inner.at + 4]
        key = (inner.protocol, inner.target, ports[2:], inner.source, ports[:2])
        return key in self.known or key in self.ways.ends

    def learn(self, packet: bytes, one: View) -> None:
        """It may open a connection, also where it does not get to the server itself: its TTL is over."""
        target = self._target(packet, one) if one.fragment < 2 else None
        if target and target.method is ForwardingMethod.MASQUERADE:
            port = target.server_port.to_bytes(2, "big")
            self.known[one.protocol, target.server, port, one.source, packet[one.at : one.at + 2]] = target

    def settle(self, records: Sequence[Record]) -> list[str]:
        """The table as it is, before fragments grow old: what is wrong about it. What it lacks belongs to nobody."""
        masquerade = {}
        for one in records:
            if one.forward is ForwardingMethod.MASQUERADE:
                key = _way_back(one)
                masquerade[key] = self.targets[key[0], one.inward.target.packed, one.inward.target_port]
        strangers = [str(key) for key in masquerade if key not in self.known]
        self.known = masquerade
        self.fragments = Fragments()
        return strangers + self.ways.wrong(records)

    def untouched(self, frame: bytes, verdict: str, *, changed: bool) -> str:
        """A complaint about a frame that was not sent, or ''."""
        if verdict == "pass" and not changed:
            return ""
        packet = untagged(frame)
        seen = view(packet)
        if not self.ours(frame, packet, seen):
            return f"{verdict} of a packet that is none of ours"
        if seen:
            self.learn(packet, seen)
            self._kept(packet, seen)
        return ""

    def _kept(self, packet: bytes, one: View) -> None:
        """It went no further, but may have left something in the node's memory."""
        if one.fragment == 2:
            return
        self.ways.unseen.add((one.protocol, one.source, packet[one.at : one.at + 2]))
        to_vip = one.target in self.vips
        target = self._target(packet, one) if to_vip else self.connection(packet, one)
        where = b""
        if target and to_vip:
            where = target.vip if target.method is ForwardingMethod.DIRECT else target.server
        elif target:
            where = self.ways.client(packet, one)
        self.fragments.kept(packet, one, where, to_vip=to_vip)

    def sent(self, frame: bytes, out: bytes, interface: str, how: str) -> str:
        """A complaint about what was sent, or ''. `interface`: that it came by; `how`: see Link.wrong."""
        before, after = untagged(frame), untagged(out)
        i, o = view(before), view(after)
        if i is None or o is None:
            return "no IP packet"
        if o.end > len(after) or i.end > len(before):
            return "IP length beyond the frame"
        if o.family == 4 and words(after[: o.at]):
            return "IP checksum"
        if not self.ours(frame, before, i):
            return "sent, but none of ours"
        self.learn(before, i)
        kind, complaint = self._way(before, i, after, o)
        if kind == "own error":
            self._kept(before, i)
        elif i.fragment:
            complaint = complaint or self.fragments.sent(i, o)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        complaint = complaint or broken(before, i) or self.link.wrong(kind, frame, out, o, interface, how=how)
        return f"{kind}: {complaint}" if complaint else ""

    def _way(self, before: bytes, i: View, after: bytes, o: View) -> tuple[str, str]:
        target = self._target(before, i)
        own = o.source == i.source and not (target and target.method is ForwardingMethod.FULLNAT)  # a forger's
        full = i.target in self.ways.locals or (o.source in self.ways.locals and not own)
        if o.is_error_type and o.target == i.source and not i.is_error_type:
            return "own error", self.own_error(before, after, o)
        if full and i.is_error_type and not i.fragment:
            return "error translated", self._quoted(before, i, after, o) or self.ways.error(before, i, after, o)
        if full:
            return ("full NAT reply" if i.target in self.ways.locals else "full NAT"), self.ways.forwarded(
                before, i, after, o
            )
        if i.target in self.vips and o.target in self.servers and o.source not in (i.source, i.target):
            return "tunnel", self._tunnel(before, i, after, o)
        if i.target in self.vips and (o.source, o.target) == (i.source, i.target):
            return "direct", self._same(before, i, after[: o.end])
        if i.is_error_type and i.protocol == o.protocol and not i.fragment and before[i.at] in ERRORS[i.protocol]:
            complaint = self._translated(before, i, after, o)
            if complaint and own and o.source in self.ways.locals:  # a forger's, about full NAT
                complaint = self._quoted(before, i, after, o) or self.ways.error(before, i, after, o)
            return "error translated", complaint
        if i.is_error_type and i.protocol == o.protocol and not i.fragment:
            return "echo", self.echo(before, i, after, o)
        if i.target in self.vips and o.source == i.source:
            return "masquerade", self._masquerade(before, i, after, o)
        if o.target == i.target:
            return "reply", self._reply(before, i, after, o)
        return "nowhere", f"{i.source.hex()} > {i.target.hex()} became {o.source.hex()} > {o.target.hex()}"

    @staticmethod
    def _same(before: bytes, i: View, after: bytes) -> str:
        """But for the TTL."""
        expected = bytearray(before[: i.end])
        ttl, mend = (8, slice(10, 12)) if i.family == 4 else (7, slice(0, 0))
        if expected[ttl] < 2:
            return "TTL"
        expected[ttl] -= 1
        expected[mend] = after[mend]
        if i.family == 4 and words(after[: i.at]):
            return "inner IP checksum"
        return "" if expected == after else "changed on its way"

    def _tunnel(self, before: bytes, i: View, after: bytes, o: View) -> str:
        inner = o.at
        if o.protocol == 17:
            inner += 12
            length = int.from_bytes(after[o.at + 4 : o.at + 6], "big")
            if int.from_bytes(after[o.at + 2 : o.at + 4], "big") != GUE_PORT or length != o.end - o.at:
                return "GUE header"
            summed = any(after[o.at + 6 : o.at + 8]) and (right(before, i) or i.fragment)
            if summed and (l4_sum(after, o) + 17 + length) % ONES:
                return "outer UDP checksum"  # it follows from the inner one, and so is as wrong as that
        elif o.protocol == 47:
            inner += 4
        elif o.protocol != (4 if i.family == 4 else 41):
            return f"outer protocol {o.protocol}"
        if not i.fragment and not i.is_error_type:
            target = self._target(before, i)
            if target is None or target.server != o.target or target.method is not ForwardingMethod.TUNNEL:
                return "to another server"
        return self._same(before, i, after[inner : o.end])

    def _target(self, packet: bytes, one: View) -> Target | None:
        return self.targets.get((one.protocol, one.target, int.from_bytes(packet[one.at + 2 : one.at + 4], "big")))

    def _masquerade(self, before: bytes, i: View, after: bytes, o: View) -> str:
        if i.fragment == 2:
            known = any(one.server == o.target and one.vip == i.target for one in self.targets.values())
            return rewritten(before, i, after, o, TARGET) if known else "another server"
        target = self._target(before, i)
        ports = after[o.at : o.at + 4]
        if target is None or target.method is not ForwardingMethod.MASQUERADE:
            return "no such service"
        if (o.target, int.from_bytes(ports[2:], "big")) != (target.server, target.server_port):
            return "to another server"
        return rewritten(before, i, after, o, TARGET)

    def _reply(self, before: bytes, i: View, after: bytes, o: View) -> str:
        target = self.connection(before, i)
        if target is None:
            return "of no connection"
        if o.source != target.vip or (i.fragment < 2 and int.from_bytes(after[o.at : o.at + 2], "big") != target.port):
            return "from another VIP"
        return rewritten(before, i, after, o, SOURCE)

    @staticmethod
    def echo(before: bytes, i: View, after: bytes, o: View) -> str:
        asked, answered = (8, 0) if i.protocol == 1 else (128, 129)
        if (o.source, o.target) != (i.target, i.source) or (before[i.at], after[o.at]) != (asked, answered):
            return "not the answer"
        if before[i.at + 1]:
            return "not a request"
        if before[i.at + 4 : i.end] != after[o.at + 4 : o.end] or i.at != o.at:
            return "other data"
        return "" if l4_sum(before, i) == l4_sum(after, o) else "ICMP checksum"

    @staticmethod
    def own_error(before: bytes, after: bytes, o: View) -> str:
        problems = wrong_checksums(after[: o.end], deep=False)
        pseudo = o.protocol + o.end - o.at if o.protocol == 58 else 0
        if problems or (l4_sum(after, o) + pseudo) % ONES:
            return "ICMP checksum"
        quote = after[o.at + 8 : o.end]
        return "" if len(quote) >= 28 and before.startswith(quote) else OTHER_QUOTE

    @staticmethod
    def _quoted(before: bytes, i: View, after: bytes, o: View) -> str:
        """Whether an error that was translated is otherwise the one that came."""
        if l4_sum(before, i) != l4_sum(after, o):
            return "ICMP checksum"
        if (o.at, o.end) != (i.at, i.end) or before[i.at] != after[o.at]:
            return "another shape"
        quoted, quote = before[i.at + 8 : i.end], after[o.at + 8 : o.end]
        was, now = view(quoted), view(quote)
        if was is None or now is None or (was.at, was.protocol, was.family) != (now.at, now.protocol, now.family):
            return "the quoted header"
        if was.family == 4 and words(quoted[: was.at]) != words(quote[: now.at]):
            return "the quoted header's checksum"
        at, size = L4_CHECKSUM[was.protocol]
        behind = was.at + at + size
        if quoted[was.at + 4 : was.at + at] != quote[was.at + 4 : was.at + at] or quoted[behind:] != quote[behind:]:
            return "changed what it must not"
        if was.protocol == 132 or len(quoted) < behind or not (was.protocol == 6 or any(quoted[behind - 2 : behind])):
            return ""
        # the checksum follows the addresses and ports, also where not all is quoted that it covers
        return "" if _quoted_sum(quoted, was) == _quoted_sum(quote, now) else "the quoted L4 checksum"

    def _translated(self, before: bytes, i: View, after: bytes, o: View) -> str:
        if complaint := self._quoted(before, i, after, o):
            return complaint
        to_server = i.target in self.vips
        seen, target = (after[o.at + 8 :], o.target) if to_server else (before[i.at + 8 :], i.target)
        inner = view(seen)
        assert inner is not None
        ports = seen[inner.at : inner.at + 4]
        # an error to the server quotes the server's own packet, one to the client is about what the server got
        key = (
            (inner.protocol, inner.source, ports[:2], inner.target, ports[2:])
            if to_server
            else (inner.protocol, inner.target, ports[2:], inner.source, ports[:2])
        )
        connection = self.known.get(key)
        if connection is None or target != (connection.server if to_server else inner.source):
            return "of no connection"
        return ""


def _quoted_sum(quote: bytes, seen: View) -> int:
    return (words(seen.source + seen.target) + words(quote[seen.at :])) % ONES


def _way_back(one: Record) -> tuple[int, bytes, bytes, bytes, bytes]:
    """As in Judge.known."""
    out = one.outward
    assert out.protocol is not None
    ports = [port.to_bytes(2, "big") for port in (out.source_port, out.target_port)]
    return PROTOCOL_NUMBER[out.protocol], out.source.packed, ports[0], out.target.packed, ports[1]
