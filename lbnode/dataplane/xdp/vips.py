"""Addresses of services, which answer ICMP echo: map `vips`, with how many services each has."""

from __future__ import annotations

from collections.abc import Iterable

from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.maps import Map
from lbnode.model import ServiceId


class Vips:
    def __init__(self, vips: Map) -> None:
        self._map = vips

    def load(self, services: Iterable[ServiceId], chunk: int) -> None:
        """Make the map tell these services' addresses, whatever it holds; `chunk`: elements read at once."""
        wanted: dict[bytes, int] = {}
        for service_id in services:
            if service_id.address is not None:
                key = layout.pack_address(service_id.address)
                wanted[key] = wanted.get(key, 0) + 1
        have = {key: layout.unpack_vip(value) for key, value in self._map.items(chunk)}
        for key in have.keys() - wanted.keys():
            self._map.delete(key)
        for key, count in wanted.items():
            if have.get(key) != count:
                self._map.put(key, layout.pack_vip(count))

    def count(self, service_id: ServiceId, step: int) -> None:
        """A service came (1) or went (-1)."""
        if service_id.address is None:
            return
        key = layout.pack_address(service_id.address)
        value = self._map.get(key)
        count = (layout.unpack_vip(value) if value else 0) + step
        if count > 0:
            self._map.put(key, layout.pack_vip(count))
        else:
            self._map.delete(key)
