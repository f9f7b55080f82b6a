"""The contract of a configuration store. Every implementation passes tests/contracts/test_store.py.

Keys are relative to the cluster's prefix (`services/tcp:192.0.2.10:80`), values are UTF-8 JSON text. A store never
gives up by itself: while nothing answers it keeps its last view and says so in `health`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lbnode.watched import Watched


@dataclass(frozen=True, slots=True)
class Entry:
    value: str
    revision: int  # store revision of the key's last modification


@dataclass(frozen=True, slots=True)
class View:
    """All keys of the cluster at one revision."""

    revision: int
    entries: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """Guard of a transaction: `key`'s revision must be `revision` (0 = the key must not exist)."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class StoreHealth:
    kind: str  # "etcd" | "embedded" | "cache"
    connected: bool
    endpoint: str  # where we are connected to, for people
    since: float  # Unix time of the last change of `connected`
    problem: str = ""  # why not connected


class Lease(Protocol):
    """Keys put under a lease vanish when it is not kept alive (node status keys)."""

    async def put(self, key: str, value: str) -> None: ...
    async def revoke(self) -> None: ...


class Store(Protocol):
    health: Watched[StoreHealth]

    async def snapshot(self) -> View:
        """A linearizable read of everything. StoreUnavailable after the store's own deadline (10 s)."""
        ...

    def watch(self) -> AsyncIterator[View]:
        """The complete view now, then after each change, for ever: resumes, relists and reconnects by itself.

        A yielded view never goes back in revision (except after the cluster was replaced or restored, which is a
        relist). Several revisions may be merged into one step; a transaction is never split.
        """
        ...

    async def txn(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int:
        """Apply all or nothing and return the new revision. StoreConflict if a guard fails."""
        ...

    async def lease(self, ttl_s: int) -> Lease:
        """A lease that the store keeps alive in the background (and re-creates, with its keys, if it was lost)."""
        ...

    async def close(self) -> None: ...
