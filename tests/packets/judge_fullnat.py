"""What full NAT may do to a packet, and the book of local ports that the judge keeps: who speaks by which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lbnode.dataplane.xdp.layout import PROTOCOL_NUMBER
from lbnode.dataplane.xdp.records import Record
from lbnode.model import ForwardingMethod
from tests.packets.mutations import ONES
from tests.packets.seeds import Target
from tests.packets.view import SOURCE, TARGET, View, changed, l4_sum, rewritten, sums, view

LOCAL_PORTS = range(1024, 32768)  # local_port.h
TOA = {4: 8, 6: 20}
# protocol, server, its port, local address, local port; all but the first packed
Way = tuple[int, bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class End:
    """Whose way it is."""

    client: bytes
    port: bytes
    target: Target


@dataclass
class Ways:
    targets: Mapping[tuple[int, bytes, int], Target]
    ends: dict[Way, End] = field(default_factory=dict)
    # protocol, client and port of packets that went no further: connections may have been entered for them
    unseen: set[tuple[int, bytes, bytes]] = field(default_factory=set)
    locals: set[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.locals = {one.local for one in self.targets.values() if one.local}

    def learn(self, records: Iterable[Record]) -> None:
        """That were told of, as a peer does."""
        for one in records:
            way, client, port = _of_record(one)
            target = self.targets[way[0], one.inward.target.packed, one.inward.target_port]
            self.ends[way] = End(client, port, target)

    def wrong(self, records: Iterable[Record]) -> list[str]:
        """What is not as the packets showed it: two connections with one way, or a way that is another client's. From
        here on these are all that there are."""
        found, seen = [], {}
        for one in records:
            if one.forward is not ForwardingMethod.FULLNAT:
                continue
            way, client, port = _of_record(one)
            known = self.ends.get(way)
            other = known is not None and (known.client, known.port) != (client, port)
            if other and (way[0], client, port) not in self.unseen:  # whose packet was not seen on its way
                found.append(f"{one}: that is {known}'s")
            if way in seen or one.outward.target_port not in LOCAL_PORTS:
                found.append(f"{one}: a second one, or a port of others")
            seen[way] = End(client, port, self.targets[way[0], one.inward.target.packed, one.inward.target_port])
        self.ends = seen
        self.unseen.clear()
        return found

    def target(self, way: Way) -> Target | None:
        known = self.ends.get(way)
        return known.target if known else None

    def client(self, packet: bytes, one: View) -> bytes:
        """Whom a server's packet is for."""
        ports = packet[one.at : one.at + 4]
        end = self.ends.get((one.protocol, one.source, ports[:2], one.target, ports[2:]))
        return end.client if end else one.target

    def forwarded(self, before: bytes, i: View, after: bytes, o: View) -> str:
        if i.target in self.locals:
            return self._reply(before, i, after, o)
        return self._request(before, i, after, o)

    def _request(self, before: bytes, i: View, after: bytes, o: View) -> str:
        if i.fragment == 2:
            known = any((one.server, one.vip, one.local) == (o.target, i.target, o.source) for one in self._ours())
            return rewritten(before, i, after, o, SOURCE, TARGET) if known else "to another server"
        port, ports = int.from_bytes(before[i.at + 2 : i.at + 4], "big"), after[o.at : o.at + 4]
        target = self.targets.get((i.protocol, i.target, port))
        if target is None or target.method is not ForwardingMethod.FULLNAT:
            return "no such service"
        if (o.target, ports[2:]) != (target.server, target.server_port.to_bytes(2, "big")):
            return "to another server"
        if o.source != target.local or int.from_bytes(ports[:2], "big") not in LOCAL_PORTS:
            return "not from its local address"
        way = (i.protocol, o.target, ports[2:], o.source, ports[:2])
        self.ends[way] = End(i.source, before[i.at : i.at + 2], target)
        if target.toa and o.end == i.end + TOA[i.family]:
            return _told(before, i, after, o)
        return changed(as_sent_on(before, i), i, after, o, SOURCE, TARGET) or sums(before, i, after, o)

    def _reply(self, before: bytes, i: View, after: bytes, o: View) -> str:
        if i.fragment == 2:
            mine = {(one.vip, one.local) for one in self._ours() if one.server == i.source}
            return rewritten(before, i, after, o, SOURCE, TARGET) if (o.source, i.target) in mine else "of another VIP"
        ports, seen = before[i.at : i.at + 4], after[o.at : o.at + 4]
        end = self.ends.get((i.protocol, i.source, ports[:2], i.target, ports[2:]))
        if end is None:
            return "of no connection"
        if (o.source, seen[:2]) != (end.target.vip, end.target.port.to_bytes(2, "big")):
            return "from another VIP"
        if (o.target, seen[2:]) != (end.client, end.port):
            return "to another client"
        return rewritten(before, i, after, o, SOURCE, TARGET)

    def error(self, before: bytes, i: View, after: bytes, o: View) -> str:
        """Of one whose quote is otherwise right: whether both ends are those of one connection."""
        to_server = i.target not in self.locals
        inside, outside = (after[o.at + 8 :], before[i.at + 8 :])
        if not to_server:
            inside, outside = outside, inside
        local, public = view(inside), view(outside)
        assert local is not None and public is not None
        (source, port), (other, other_port) = _ends(inside, local)
        if not to_server:
            (source, port), (other, other_port) = (other, other_port), (source, port)
        end = self.ends.get((local.protocol, source, port, other, other_port))
        if end is None:
            return "of no connection"
        ends = [(end.target.vip, end.target.port.to_bytes(2, "big")), (end.client, end.port)]
        if list(_ends(outside, public)) != (ends if to_server else ends[::-1]):
            return "of another connection"
        if (o.source, o.target) != ((other, source) if to_server else (end.target.vip, end.client)):
            return "to another one"
        return ""

    def _ours(self) -> list[Target]:
        return [one for one in self.targets.values() if one.local]


def _ends(packet: bytes, seen: View) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    return (seen.source, packet[seen.at : seen.at + 2]), (seen.target, packet[seen.at + 2 : seen.at + 4])


def _of_record(one: Record) -> tuple[Way, bytes, bytes]:
    """Its way, the client and its port."""
    out, inward = one.outward, one.inward
    assert out.protocol is not None
    port, local = out.source_port.to_bytes(2, "big"), out.target_port.to_bytes(2, "big")
    way = (PROTOCOL_NUMBER[out.protocol], out.source.packed, port, out.target.packed, local)
    return way, inward.source.packed, inward.source_port.to_bytes(2, "big")


def _told(before: bytes, i: View, after: bytes, o: View) -> str:
    """Whether the packet says who the client is, and is otherwise as it would be without that."""
    size = TOA[i.family]
    option = bytes([254, size]) + before[i.at : i.at + 2] + i.source
    was = (before[i.at + 12] >> 4) * 4
    if (after[o.at + 12] >> 4) * 4 != was + size:
        return "TCP's header does not reach to the end of its options"
    if (l4_sum(before, i) + i.end - i.at) % ONES != (l4_sum(after, o) + o.end - o.at) % ONES:
        return "L4 checksum"
    at = next((at for at in (o.at + 20, o.at + was) if after[at : at + size] == option), 0)
    if not at:
        return "no TOA at either end of the options"
    data = bytearray(after[:at] + after[at + size : o.end])
    data[o.at + 12] = before[i.at + 12]
    length = slice(4, 6) if i.family == 6 else slice(2, 4)
    data[length] = before[length]
    seen = view(bytes(data))
    return changed(as_sent_on(before, i), i, bytes(data), seen, SOURCE, TARGET) if seen else "no IP packet"


def as_sent_on(packet: bytes, seen: View) -> bytes:
    """TCP: without what the client says for TOA."""
    if seen.protocol != 6:
        return packet
    start, end = seen.at + 20, seen.at + (packet[seen.at + 12] >> 4) * 4
    return packet[:start] + stripped(packet[start:end]) + packet[end:]


def stripped(options: bytes) -> bytes:
    """TCP's options with NOPs in the place of TOA, and of what stands behind their end or a wrong length."""
    out, at = bytearray(options), 0
    while at < len(out):
        if out[at] == 1:
            at += 1
            continue
        size, left = out[at + 1] if at + 1 < len(out) else 0, len(out) - at
        broken = out[at] == 0 or not 2 <= size <= left
        size = left if broken else size
        if broken or out[at] == 254:
            out[at : at + size] = b"\1" * size
        at += size
    return bytes(out)
