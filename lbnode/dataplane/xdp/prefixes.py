"""Maps `prefixes` and `sources`: who may open connections to the services."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from lbnode.dataplane.xdp import access, layout
from lbnode.dataplane.xdp.layout import AccessKind, PrefixKey
from lbnode.dataplane.xdp.maps import Map
from lbnode.errors import DataPlaneError
from lbnode.model import Access, Network

_CHUNK = 1024


class Prefixes:
    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._prefixes, self._sources = maps["prefixes"], maps["sources"]
        self._known: dict[int, dict[Network | None, AccessKind]] = {}  # by index of the service: what the map has

    def load(self, families: Mapping[int, int]) -> Mapping[int, Access]:
        """Read the map; returns the lists by index. `families`: of the services by index; others' entries go."""
        for key, value in list(self._prefixes.items(_CHUNK)):
            index = layout.unpack_prefix_service(key)
            if index not in families:
                self._prefixes.delete(key)
                continue
            kind = AccessKind(struct.unpack("=I", value)[0])
            network = PrefixKey.unpack(key, families[index]).network
            self._known.setdefault(index, {})[network] = kind
        return {index: access.lists(found) for index, found in self._known.items()}

    def put(self, index: int, wanted: Access, family: int) -> None:
        """Make the service's lists these. DataPlaneError: no room; what was done is kept and gone on from."""
        known = self._known.setdefault(index, {})
        for network, kind in list(access.steps(known, access.entries(wanted, family))):
            key = PrefixKey(index, network).pack()
            if kind is None:
                self._prefixes.delete(key)
                del known[network]
                continue
            try:
                self._prefixes.put(key, struct.pack("=I", kind))
            except DataPlaneError as error:
                if error.errno != errno.ENOSPC:
                    raise
                most = self._prefixes.info.max_entries
                raise DataPlaneError(
                    f"no room: the data plane holds at most {most} prefixes of allow and deny"
                ) from error
            known[network] = kind
        if not known:
            del self._known[index]

    def forget_sources(self, index: int) -> None:
        """Another service may get this index."""
        for key in [key for key, _ in self._sources.items(_CHUNK)]:
            if layout.unpack_source_key(key) == index:
                self._sources.delete(key)
