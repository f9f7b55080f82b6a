"""Fixtures of the store tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest_asyncio

from lbnode.store.etcd import EtcdStore


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Callable[..., EtcdStore]]:
    """EtcdStore(...) that is closed after the test."""
    stores: list[EtcdStore] = []

    def open_store(*arguments: Any, **settings: Any) -> EtcdStore:
        stores.append(EtcdStore(*arguments, **settings))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()
