"""What a new set of maps takes over from an older one, connections aside.

A map that is defined the same is shared by both sets, so counters, cursors and leases go on; another one is copied,
each field to where the new layout has it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

from lbnode.dataplane.xdp import layout, syscall
from lbnode.dataplane.xdp.libbpf import Definition
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.succession.btf import Field, Types
from lbnode.dataplane.xdp.succession.fields import Conversion, Shape

# What tells of, or counts, the entries of its own connection table, and what belongs to its own programs: made anew.
_OWN = frozenset(
    {
        "meta",
        "conns",
        "replies",
        "gauges",
        "half_open",
        "changed",
        "changed_ends",
        "clock",
        "sweeper",
        "records",
        "scratch",
    }
    | {"successor_xdp", "successor_xdp_frags", "successor_tc"}
)
_COPIED = frozenset({"config", "events"})  # even if they are the same: each set writes its own
# enum bpf_map_type of those that can be read and written as a whole: hashes, arrays, also by CPU, LRU and LPM trie
_READABLE = frozenset({1, 2, 5, 6, 9, 10, 11})
_ARRAYS = frozenset({2, 6})
_CHUNK = 1024


class Layouts:
    """Keys and values of maps as shapes; BTF is read once."""

    def __init__(self) -> None:
        self._types: dict[int, Types] = {}

    def of(self, one: Map) -> tuple[Shape, Shape]:
        info = one.info
        if info.btf_id and info.btf_id not in self._types:
            self._types[info.btf_id] = Types(syscall.btf(info.btf_id))
        types = self._types.get(info.btf_id)
        stride = (info.value_size + 7) // 8 * 8 if one.per_cpu else info.value_size
        return (
            Shape(_fields(types, info.key_type, info.key_size), info.key_size),
            Shape(_fields(types, info.value_type, info.value_size), stride),
        )

    def conversion(self, old: Map, new: Map) -> Conversion:
        """Of the values."""
        return Conversion(self.of(old)[1], self.of(new)[1])


def _fields(types: Types | None, type_id: int, size: int) -> tuple[Field, ...]:
    return types.fields(type_id) if types is not None and type_id else (Field("", 0, size),)


class Carry:
    def __init__(self, old: Mapping[str, Map], layouts: Layouts) -> None:
        self._old = old
        self._layouts = layouts
        self._types: Types | None = None  # of the object that is being loaded

    def shared(self, wanted: Definition, btf: bytes) -> int | None:
        """Asked by LoadedObject."""
        old = self._old.get(wanted.name)
        if old is None or wanted.name in _OWN | _COPIED:
            return None
        info = old.info
        theirs = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        if theirs != (wanted.type, wanted.key_size, wanted.value_size, wanted.max_entries, wanted.flags):
            return None
        self._types = self._types or Types(btf)
        key, value = self._layouts.of(old)
        same = key.fields == _fields(self._types, wanted.key_type, wanted.key_size)
        return old.fd if same and value.fields == _fields(self._types, wanted.value_type, wanted.value_size) else None

    async def copy(self, new: Mapping[str, Map]) -> None:
        for name, target in new.items():
            old = self._old.get(name)
            if old is not None and name not in _OWN and old.info.id != target.info.id and old.info.type in _READABLE:
                await self._copy(old, target)
        new["events"].put_index(layout.Event.ENTRIES, bytes(new["events"].value_size))

    async def _copy(self, old: Map, new: Map) -> None:
        (old_key, old_value), (new_key, new_value) = self._layouts.of(old), self._layouts.of(new)
        keys_to, values_to = Conversion(old_key, new_key), Conversion(old_value, new_value)
        limit = new.info.max_entries if new.info.type in _ARRAYS else None
        for old_keys, old_values in old.batches(_CHUNK):
            keys, values = keys_to.convert(old_keys), values_to.convert(old_values)
            count = len(keys) // new.info.key_size
            if limit is not None:
                count = min(count, max(0, limit - int(struct.unpack_from("=I", keys)[0])))
            if count:
                size = new.value_size
                syscall.map_update_batch(new.fd, keys[: count * new.info.key_size], values[: count * size], count)
            await asyncio.sleep(0)

    def generation(self) -> int:
        """The last one that was given to a server."""
        _, shape = self._layouts.of(self._old["meta"])
        at = next(one.offset for one in shape.fields if one.path == "generation")
        return int(struct.unpack_from("=I", self._old["meta"].get_index(0), at)[0])
