"""The real page in real Chromium: it says when it is out of date, and finds its node again."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Route, expect

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


async def test_nothing_is_old_before_the_first_frame_is_complete(browser: Browser) -> None:
    async with site_of(browser, FakeControl()) as site:
        page = await site.open()
        ages = await page.evaluate("""async () => {
            const { apply, dataAge, isStale } = await import("/static/state.js?another");
            apply.status({ time: Date.now() / 1000, dataplane: { cpu_packets: [] } });
            const early = [dataAge(), isStale()];
            apply.tick({ time: Date.now() / 1000 });
            return [...early, dataAge() < 5, isStale()];
        }""")
        assert ages == [None, False, True, False]


@pytest.mark.parametrize("lost", [("topology.js",), ("main.js", "style.css")], ids="+".join)
async def test_a_page_that_lost_a_part_of_itself_says_so_and_loads_it_again(
    browser: Browser, lost: tuple[str, ...]
) -> None:
    async with site_of(browser, FakeControl()) as site:
        page, missing = await site.open(), set(lost)

        async def lose(route: Route) -> None:
            if route.request.url.rpartition("/")[2] in missing:
                await route.abort("connectionreset")
            else:
                await route.continue_()

        await page.route("**/static/*", lose)
        await page.reload()
        await expect(page.locator("#outage")).to_contain_text("lost on the way")
        missing.clear()
        await expect(page.locator("#outage")).to_have_text("")
        await expect(page.locator("#age")).to_contain_text("live")
        await expect(page.locator("#topology .node.server")).to_have_count(6)
