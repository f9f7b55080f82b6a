"""Fixtures of the contract suites: a data plane of each kind; etcd stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lbnode.dataplane.base import DataPlane
from lbnode.store.etcd import EtcdStore
from tests.contracts.plane_cases import CASES, PlaneCase


@pytest_asyncio.fixture(params=CASES.values())
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PlaneCase]:
    case: PlaneCase = request.param(tmp_path)
    yield case
    await case.cleanup()


@pytest_asyncio.fixture
async def plane(case: PlaneCase) -> AsyncIterator[DataPlane]:
    plane = case.plane()
    await plane.open()
    yield plane
    await plane.close(unload=True)


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
