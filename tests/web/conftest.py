"""Fixtures of the page tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from tests.web.fake_control import FakeControl
from tests.web.screenshot import chromium
from tests.web.site import Site, site_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser, FakeControl()) as made:
        yield made
        assert made.complaints == []
