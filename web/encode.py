"""Values of control.py -> JSON, field for field: enums, addresses and ids as text, floats finite (else null)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Building one compiles a serializer (milliseconds), so each type has it once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _plain(value: Any) -> Any:
    """For what hides behind a `Mapping` or `Any` annotation: read-only mappings, sets, addresses, ids."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def encode(value: Any) -> bytes:
    """One dataclass instance as JSON. About 20 µs for a service with ten servers."""
    return adapter(type(value)).dump_json(value, fallback=_plain, warnings=False)


def array(items: Iterable[bytes]) -> bytes:
    """Already encoded values as one JSON array."""
    return b"[" + b",".join(items) + b"]"
