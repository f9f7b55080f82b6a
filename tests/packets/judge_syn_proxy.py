"""Judges what becomes of TCP segments at a service with SYN cookies, by sequence numbers of its own account."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.packets.bench import COOKIE_KEY
from tests.packets.cookies import NO_SCALE, cookie
from tests.packets.judge import OTHER_QUOTE
from tests.packets.judge import Judge as Others
from tests.packets.judge_fullnat import as_sent_on
from tests.packets.mutations import ONES, words
from tests.packets.syn_proxy import SCALE
from tests.packets.view import SOURCE, TARGET, View, broken, changed, l4_sum, rewritten, untagged, view

FIN, SYN, RST, ACK = 1, 2, 4, 16
MSS, WSCALE, SACK_PERMITTED, SACK = 2, 3, 4, 5
SIZES = {MSS: 4, WSCALE: 3, SACK_PERMITTED: 2}
_32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP header. `options`: where each begins in the segment, by kind; the last one counts."""

    ports: bytes
    seq: int
    ack: int
    flags: int
    window: int
    options: dict[int, bytes]
    places: dict[int, int]
    data: bytes


def segment(packet: bytes, seen: View) -> Segment:
    part = packet[seen.at : seen.end]
    seq, ack, size, flags, window = struct.unpack("!IIBBH", part[4:16])
    length = (size >> 4) * 4
    options, places, at = {}, {}, 20
    while at < length and part[at]:
        if part[at] == 1:
            at += 1
            continue
        size = part[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            break
        if size == SIZES.get(part[at], size) and (part[at] != SACK or size % 8 == 2):
            options[part[at]], places[part[at]] = part[at + 2 : at + size], at
        at += size
    return Segment(part[:4], seq, ack, flags, window, options, places, part[length:])


@dataclass
class Connection:
    """The one of the round. `seen`: whom the server talks to; `delta`: from its numbers to those that clients see."""

    client: bytes
    port: int
    cookie: int
    isn: int
    seen: tuple[bytes, int] | None = None
    waits: bool = True  # for the server's SYN-ACK
    delta: int = 0
    left: int = 0  # bits to shift the server's windows, and the client's
    client_left: int = 0


@dataclass
class Judge:
    vip: bytes
    server: bytes
    full: bool
    known: Connection
    seen: Counter[str] = field(default_factory=Counter)

    def look(self, frame: bytes, verdict: str, out: bytes, now_ms: int) -> str:
        """A complaint, or ''."""
        before, after = untagged(frame), untagged(out)
        i, o = view(before), view(after)
        if verdict != "send":
            whole = i is not None and i.protocol == 6 and i.fragment < 2 and i.end <= len(before)
            if verdict == "drop" and i is not None and whole and not broken(before, i):
                self._opens(i, segment(before, i))  # its options leave no room for a probe, but its numbers are known
            target = before[16:20] if len(self.vip) == 4 else before[24:40]  # wherever it calls itself another version
            ours = target == self.vip or (i is not None and i.source == self.server)
            return "" if (verdict == "pass" and out == frame) or ours else f"{verdict} of a packet that is none of ours"
        if i is None or o is None or o.end > len(after) or (o.family == 4 and words(after[: o.at])):
            return "no IP packet"
        kind, complaint = self._way(before, i, after, o, now_ms)
        self.seen[kind] += 1
        return f"{kind}: {complaint}" if complaint else ""

    def _way(self, before: bytes, i: View, after: bytes, o: View, now_ms: int) -> tuple[str, str]:
        if o.is_error_type and not i.is_error_type:
            return "own error", self._own_error(before, i, after, o)
        if i.protocol != 6 or o.protocol != 6:
            return "echo", Others.echo(before, i, after, o)
        to_server = o.target == self.server
        if i.fragment == 2:
            return "fragment", rewritten(before, i, after, o, *self._ends(to_server))
        was, now = segment(before, i), segment(after, o)
        if (o.source, o.target) == (i.target, i.source):
            return "cookie", _made(after, o) or self._cookie(i, was, now, now_ms)
        if to_server and now.flags & SYN and not was.flags & SYN:
            return "opening", _made(after, o) or self._opening(i, was, o, now, now_ms)
        if to_server:
            return "segment to the server", self._forwarded(before, i, was, after, o, now)
        if was.flags & (SYN | ACK | RST) == SYN | ACK:
            return "probe", _made(after, o) or self._probe(i, was, o, now)
        return "segment to the client", self._returned(before, i, was, after, o, now)

    def _ends(self, to_server: bool) -> tuple[str, ...]:
        return (SOURCE, TARGET) if self.full else (TARGET,) if to_server else (SOURCE,)

    def _own_error(self, before: bytes, i: View, after: bytes, o: View) -> str:
        complaint = Others.own_error(before, after, o)
        if i.protocol != 6 or i.fragment:
            return complaint
        was = segment(before, i)
        self._opens(i, was)
        made = self.known.waits or was.flags & SYN  # it had become another segment: the quote tells whose at least
        return "" if made and complaint == OTHER_QUOTE and before[i.at : i.at + 4] in after else complaint

    def _cookie(self, i: View, was: Segment, now: Segment, now_ms: int) -> str:
        if was.flags & (SYN | ACK | RST | FIN) != SYN or i.target != self.vip:
            return "for no SYN"
        if now.ports != was.ports[2:] + was.ports[:2] or now.flags != SYN | ACK or now.window or now.data:
            return "no SYN-ACK with a closed window"
        if now.ack != (was.seq + 1) & _32:
            return "acknowledges something else"
        offered = was.options.get(WSCALE)
        scale = NO_SCALE if offered is None else min(14, offered[0])
        if (now.seq >> 1 & 15, now.seq >> 5 & 1) != (scale, was.options.get(SACK_PERMITTED) == b""):
            return "the cookie says other options"
        if now.options.get(WSCALE) != (None if scale == NO_SCALE else bytes([SCALE])):
            return "offers another window scale"
        return "" if now.seq == self._expected(i, was.ports, was.seq, now.seq, now_ms) else "another cookie"

    def _expected(self, i: View, ports: bytes, isn: int, given: int, now_ms: int) -> int:
        client, vip = (str(ip_address(one)) for one in (i.source, i.target))
        port, vip_port = struct.unpack("!HH", ports)
        return cookie(COOKIE_KEY, client, port, vip, vip_port, isn, now_ms, given & 0xFE)

    def _opening(self, i: View, was: Segment, o: View, now: Segment, now_ms: int) -> str:
        given = was.ack - 1 & _32
        if not was.flags & ACK or was.flags & SYN or now.seq not in (was.seq, was.seq - 1 & _32):
            return "for no ACK"
        if given != self._expected(i, was.ports, now.seq, given, now_ms):
            return "without a cookie"
        if now.flags != SYN or now.data or now.options.get(WSCALE, b"\x0f") != bytes([given >> 1 & 15]):
            return "another SYN than the client's"
        if (o.source != i.source) != self.full or now.ports[2:] != (8080).to_bytes(2, "big"):
            return "to somebody else"
        self.known.seen, self.known.waits = (o.source, int.from_bytes(now.ports[:2], "big")), True
        return ""

    def _forwarded(self, before: bytes, i: View, was: Segment, after: bytes, o: View, now: Segment) -> str:
        known = self.known
        if (i.source, was.ports[:2]) != (known.client, known.port.to_bytes(2, "big")):
            return "of no connection"
        if (o.source, int.from_bytes(now.ports[:2], "big")) != known.seen:
            return "from another end"
        expected = bytearray(before)
        if was.flags & ACK:
            expected[i.at + 8 : i.at + 12] = (was.ack - known.delta & _32).to_bytes(4, "big")
        if not was.flags & SYN:
            expected[i.at + 14 : i.at + 16] = min(0xFFFF, was.window << known.client_left).to_bytes(2, "big")
        blocks = was.options.get(SACK, b"")
        at = i.at + was.places.get(SACK, 0) + 2
        for n in range(0, len(blocks), 4):
            edge = int.from_bytes(blocks[n : n + 4], "big") - known.delta & _32
            expected[at + n : at + n + 4] = edge.to_bytes(4, "big")
        return _carried(before, as_sent_on(expected, i) if self.full else expected, i, after, o, self._ends(True))

    def _probe(self, i: View, was: Segment, o: View, now: Segment) -> str:
        known = self.known
        if not self._answers(i, was) or not self._reaches(o, now):
            return "of no connection"
        self._opens(i, was)
        if now.seq != (was.seq + known.delta) & _32:
            return "numbered otherwise"
        if now.flags != ACK or now.ack != was.ack or now.data != b"\0" or set(now.options):
            return "no keep-alive with one old byte"
        return "" if now.window == was.window >> SCALE else "another window"

    def _opens(self, i: View, was: Segment) -> None:
        """The server's SYN-ACK: its numbers are known from now on."""
        known, flags = self.known, was.flags & (SYN | ACK | RST)
        if not known.waits or flags != SYN | ACK or not self._answers(i, was) or was.ack != known.isn + 1 & _32:
            return
        offered = was.options.get(WSCALE)
        known.waits, known.delta = False, known.cookie - was.seq & _32
        known.left, known.client_left = (min(14, offered[0]), 0) if offered else (0, 7)

    def _returned(self, before: bytes, i: View, was: Segment, after: bytes, o: View, now: Segment) -> str:
        known = self.known
        if not self._answers(i, was) or not self._reaches(o, now):
            return "of no connection"
        expected = bytearray(before)
        refusal = known.waits and was.flags & (SYN | RST | ACK) == RST | ACK and now.seq == known.cookie + 1 & _32
        seq = now.seq if refusal else was.seq + known.delta & _32
        expected[i.at + 4 : i.at + 8] = seq.to_bytes(4, "big")
        window = was.window if refusal else min(0xFFFF, was.window << known.left >> SCALE)
        expected[i.at + 14 : i.at + 16] = window.to_bytes(2, "big")
        return _carried(before, expected, i, after, o, self._ends(False))

    def _answers(self, i: View, was: Segment) -> bool:
        known = self.known.seen
        ports = struct.unpack("!HH", was.ports)
        return known is not None and (i.source, ports[0], i.target, ports[1]) == (self.server, 8080, *known)

    def _reaches(self, o: View, now: Segment) -> bool:
        known, ports = self.known, struct.unpack("!HH", now.ports)
        return (o.source, ports[0], o.target, ports[1]) == (self.vip, 80, known.client, known.port)


def _made(after: bytes, o: View) -> str:
    """About a segment that the gateway made: its checksum is right whatever came in."""
    return "" if (l4_sum(after, o) + 6 + o.end - o.at) % ONES == 0 else "TCP checksum"


def _carried(before: bytes, expected: bytes | bytearray, i: View, after: bytes, o: View, ends: tuple[str, ...]) -> str:
    """About one that is the same but for what is translated; its sum is as wrong as it was."""
    return changed(expected, i, after, o, *ends) or ("" if l4_sum(before, i) == l4_sum(after, o) else "TCP checksum")
