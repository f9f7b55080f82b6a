"""The VLANs of this node in the maps, for the program at XDP, which handles tags itself (bpf/vlan.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.maps import Map

_KEY, _INDEX, _EGRESS = struct.Struct("=II"), struct.Struct("=I"), struct.Struct("=IHH")


class Vlans:
    """`update` makes maps `vlans` and `egress` equal to the links there are; it starts from what the maps hold."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._vlans, self._egress = maps["vlans"], maps["egress"]
        self._known = {_INDEX.unpack(value)[0]: _KEY.unpack(key) for key, value in self._vlans.items()}

    def update(self, interfaces: Iterable[Interface]) -> None:
        """Interfaces whose index is beyond the map cannot be sent by from XDP, as any VLAN's without this."""
        size = self._egress.info.max_entries
        wanted = {one.index: one.vlan for one in interfaces if one.vlan is not None and one.index < size}
        for index, vlan in list(self._known.items()):
            if wanted.get(index) != vlan:
                self._vlans.delete(_KEY.pack(*vlan))
                self._egress.put_index(index, bytes(_EGRESS.size))
                del self._known[index]
        for index, vlan in wanted.items():
            if index not in self._known:
                self._egress.put_index(index, _EGRESS.pack(*vlan, 0))
                self._vlans.put(_KEY.pack(*vlan), _INDEX.pack(index))
                self._known[index] = vlan
