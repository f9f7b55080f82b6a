"""A lease that is kept alive, and granted again together with its keys if it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from lbnode.errors import StoreUnavailable

RETRY_S = 1.0


class LeaseGone(Exception):
    """The lease named in a request has expired or was revoked."""


class LeaseBackend(Protocol):
    """What a store offers for leases. Each may raise StoreUnavailable."""

    async def grant(self, ttl_s: int) -> int: ...
    async def keep_alive(self, lease_id: int) -> bool:
        """False if the lease is gone."""
        ...

    async def put_leased(self, lease_id: int, puts: Mapping[str, str]) -> None:
        """LeaseGone."""
        ...

    async def revoke(self, lease_id: int) -> None:
        """Nothing to do is no error."""
        ...


class KeptLease:
    """Lease of store/base.py. It is granted with the first put; `keep` runs in the background until `revoke`."""

    def __init__(self, backend: LeaseBackend, ttl_s: int) -> None:
        self._backend = backend
        self._ttl_s = ttl_s
        self._id = 0  # 0: to be granted
        self._keys: dict[str, str] = {}  # what the keys shall hold
        self._behind = False  # a put failed: the store may hold older values
        self._lock = asyncio.Lock()
        self._revoked = asyncio.Event()

    async def put(self, key: str, value: str) -> None:
        """StoreUnavailable if it did not get through; it is then put as soon as the store answers again."""
        if self._revoked.is_set():
            raise ValueError(f"{key}: the lease was revoked")
        self._keys[key] = value
        async with self._lock:
            await self._write({key: self._keys[key]})

    async def revoke(self) -> None:
        """Delete the keys now. StoreUnavailable: they vanish when the lease expires."""
        self._revoked.set()
        async with self._lock:
            lease_id, self._id = self._id, 0
            if lease_id:
                await self._backend.revoke(lease_id)

    async def keep(self) -> None:
        """Keep the lease alive three times per TTL until it is revoked."""
        while not self._revoked.is_set():
            pause_s = self._ttl_s / 3
            try:
                async with self._lock:
                    await self._keep_once()
            except StoreUnavailable:
                pause_s = min(pause_s, RETRY_S)
            try:
                async with asyncio.timeout(pause_s):
                    await self._revoked.wait()
            except TimeoutError:
                continue

    async def _keep_once(self) -> None:
        if self._revoked.is_set() or not self._keys:
            return
        if self._id and not await self._backend.keep_alive(self._id):
            self._id = 0
        if not self._id or self._behind:
            await self._write(self._keys)

    async def _write(self, puts: Mapping[str, str]) -> None:
        """Put `puts`; all keys if the lease has to be granted (again), or an earlier put failed."""
        if self._revoked.is_set():
            return
        catch_up, self._behind = self._behind, True
        for _ in range(3):  # a lease that is gone at once three times over has another cause than bad luck
            if not self._id:
                self._id = await self._backend.grant(self._ttl_s)
                catch_up = True
            try:
                await self._backend.put_leased(self._id, dict(self._keys) if catch_up else puts)
            except LeaseGone:
                self._id = 0
                continue
            self._behind = False
            return
        raise StoreUnavailable(f"the store drops each lease of {self._ttl_s} s at once")
