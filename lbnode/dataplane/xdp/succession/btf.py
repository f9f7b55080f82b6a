"""BTF, the kernel's type format (Documentation/bpf/btf.rst): the fields of a map's keys and values, by name. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct(
    "=HBBIIIII"
)  # struct btf_header: magic, version, flags, length, types at, length, strings at, length
_TYPE = struct.Struct("=III")  # struct btf_type: name, info, size or type
_ARRAY = struct.Struct("=III")  # struct btf_array: type, index type, elements
_MEMBER = struct.Struct("=III")  # struct btf_member: name, type, bits from the beginning
_MAGIC = 0xEB9F


class Kind(IntEnum):
    """`enum` BTF_KIND_*."""

    INT = 1
    POINTER = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC_PROTO = 13
    VARIABLE = 14
    SECTION = 15
    DECLARATION_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes behind struct btf_type: once, or for each of its members.
_ONCE: Mapping[int, int] = {Kind.INT: 4, Kind.ARRAY: _ARRAY.size, Kind.VARIABLE: 4, Kind.DECLARATION_TAG: 4}
_EACH: Mapping[int, int] = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.SECTION: 12,
    Kind.ENUM64: 12,
}
_NAMES_ANOTHER = (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)


@dataclass(frozen=True, slots=True)
class Field:
    """Bytes that are one thing: a number, an address, an array of numbers."""

    path: str  # "in.source_port", "server[3].index"; "" = the whole
    offset: int
    size: int


class Types:
    """The types of one blob. ValueError: it is none."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, length, types_at, types_length, strings_at, strings_length = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not BTF of this machine")
        self._data = data
        self._strings = data[length + strings_at :][:strings_length]
        self._at = [0]  # by type id; 0 is void
        at, end = length + types_at, length + types_at + types_length
        while at < end:
            self._at.append(at)
            kind, members = self._kind(at)
            at += _TYPE.size + _ONCE.get(kind, 0) + _EACH.get(kind, 0) * members

    def _kind(self, at: int) -> tuple[int, int]:
        info = _TYPE.unpack_from(self._data, at)[1]
        return info >> 24 & 0x1F, info & 0xFFFF

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def fields(self, type_id: int) -> tuple[Field, ...]:
        return tuple(self._fields(type_id, "", 0))

    def _fields(self, type_id: int, path: str, offset: int) -> Iterator[Field]:
        at = self._resolve(type_id)
        kind, members = self._kind(at)
        if kind == Kind.STRUCT:
            for number in range(members):
                name, member, bits = _MEMBER.unpack_from(self._data, at + _TYPE.size + number * _MEMBER.size)
                inner = ".".join(filter(None, (path, self._name(name))))
                yield from self._fields(member, inner, offset + (bits & 0xFFFFFF) // 8)
        elif kind == Kind.ARRAY and self._kind(self._resolve(self._element(at)[0]))[0] == Kind.STRUCT:
            element, count = self._element(at)
            for number in range(count):
                yield from self._fields(element, f"{path}[{number}]", offset + number * self.size(element))
        else:
            yield Field(path, offset, self.size(type_id))

    def size(self, type_id: int) -> int:
        at = self._resolve(type_id)
        kind, _ = self._kind(at)
        if kind == Kind.ARRAY:
            element, count = self._element(at)
            return self.size(element) * count
        return 8 if kind == Kind.POINTER else int(_TYPE.unpack_from(self._data, at)[2])

    def _element(self, at: int) -> tuple[int, int]:
        element, _, count = _ARRAY.unpack_from(self._data, at + _TYPE.size)
        return element, count

    def _resolve(self, type_id: int) -> int:
        """Where the type is that this one is another name of."""
        at = self._at[type_id]
        while self._kind(at)[0] in _NAMES_ANOTHER:
            at = self._at[_TYPE.unpack_from(self._data, at)[2]]
        return at
