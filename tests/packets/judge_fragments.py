"""Where later fragments may go: after the first one with the same addresses, identification and (IPv4) protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.packets.view import View, broken

_Key = tuple[bytes, bytes, bytes, int]


@dataclass
class Fragments:
    """Of the last half minute."""

    # where a datagram's pieces may go; several where a first piece was not seen to leave
    ways: dict[_Key, set[bytes]] = field(default_factory=dict)

    def sent(self, i: View, o: View) -> str:
        """A complaint, or ''. A first fragment is remembered."""
        if i.fragment == 1:
            self.ways[_key(i)] = {o.target}
            return ""
        return "" if o.target in self.ways.get(_key(i), ()) else "not after its first fragment"

    def kept(self, packet: bytes, i: View, where: bytes, *, to_vip: bool) -> None:
        """A packet went no further. `where` it would have gone; a first fragment that nobody serves (b"") ends what its
        identification stood for."""
        if i.fragment != 1:
            return
        plain = i.at == (20 if i.family == 4 else 48) and i.protocol in (6, 17) and i.end <= len(packet)
        if where:
            self.ways.setdefault(_key(i), set()).add(where)
        elif to_vip and plain and not broken(packet, i):
            self.ways.pop(_key(i), None)


def _key(i: View) -> _Key:
    return i.source, i.target, i.id, i.protocol if i.family == 4 else 0
