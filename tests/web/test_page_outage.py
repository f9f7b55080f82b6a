"""The real page in real Chromium: it says when it is out of date, and finds its node again."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.web.fake_control import FakeControl
from tests.web.screenshot import TOKEN, log_in
from tests.web.site import WAIT_MS, Site, site_of
from web.app import make_app, serve

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


async def test_figures_that_are_no_longer_renewed_look_old(site: Site) -> None:
    """The connection lives, but the node has stopped measuring: its page must not look well."""
    page = await site.open()
    site.ticks.cancel()
    await expect(page.locator("body")).to_have_attribute("data-link", "stale")
    await expect(page.locator("#outage")).to_contain_text("has stopped renewing its figures")
    site.control.tick()
    await expect(page.locator("body")).to_have_attribute("data-link", "live")
    await expect(page.locator("#outage")).to_be_hidden()


async def test_a_stopped_node_is_seen_and_found_again(browser: Browser) -> None:
    async with site_of(browser, FakeControl()) as site:
        page, port = await site.open(), site.server.port
        await site.server.close()
        await expect(page.locator("#age")).to_contain_text("reconnecting")
        await expect(page.locator("#outage")).to_contain_text("No connection to this node")
        # It comes back without its sessions: the page asks to log in again instead of waiting for ever.
        site.server = await serve(make_app(site.control, token=TOKEN, metrics=None), None, port=port)
        await page.wait_for_url("**/login", timeout=WAIT_MS)
        await log_in(page, site.url)
        await expect(page.locator("#age")).to_contain_text("live")
