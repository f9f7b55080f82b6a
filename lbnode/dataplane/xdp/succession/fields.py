"""Values of one layout written in another: fields keep their names (lb.h says what else holds). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lbnode.dataplane.xdp.succession.btf import Field


@dataclass(frozen=True, slots=True)
class Shape:
    """Of keys, values or records: what one consists of, and bytes from one to the next."""

    fields: tuple[Field, ...]
    stride: int


class Conversion:
    """What the new layout does not know is left out; what the old one did not know is 0."""

    def __init__(self, old: Shape, new: Shape) -> None:
        self._old, self._new = old, new
        known = {one.path: one for one in old.fields}
        self._moves = [(known[one.path], one) for one in new.fields if one.path in known]

    @property
    def changes(self) -> bool:
        return self._old != self._new

    def convert(self, data: bytes) -> bytes:
        """`data`: whole elements one after the other."""
        if not self.changes:
            return data
        old, new = self._old.stride, self._new.stride
        result = bytearray(len(data) // old * new)
        for source, target in self._moves:
            for byte in range(min(source.size, target.size)):
                result[target.offset + byte :: new] = data[source.offset + byte :: old]
        return bytes(result)


def offset_of(fields: Sequence[Field], path: str) -> int:
    """KeyError: there is no such field."""
    for one in fields:
        if one.path == path:
            return one.offset
    raise KeyError(path)
