"""Fixtures of the tests of API and page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from playwright.async_api import Browser

from tests.web.client import TOKEN, Client
from tests.web.fake_control import FakeControl
from tests.web.screenshot import chromium
from tests.web.site import Site, site_of
from web.app import make_app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser, FakeControl()) as made:
        yield made
        assert made.complaints == []


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def tcp(control: FakeControl) -> AsyncIterator[Client]:
    app = make_app(control, token=TOKEN, metrics=lambda: (b"lb_up 1\n", "text/plain; version=0.0.4"))
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def api(control: FakeControl) -> AsyncIterator[Client]:
    """As on the unix socket: no token."""
    async with TestClient(TestServer(make_app(control, token=None, metrics=None))) as client:
        yield client
