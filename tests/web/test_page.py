"""The real page in real Chromium: what it shows of a cluster that the test changes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from lbnode.journal import Kind
from lbnode.model import Problem
from lbnode.store.base import StoreHealth
from tests.web.fake_control import DNS, SSH, WEB, FakeControl, server, service
from tests.web.screenshot import TOKEN, shoot
from tests.web.site import SECOND_WEB, Site, site_of

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


async def test_login_then_the_page(browser: Browser) -> None:
    async with site_of(browser, FakeControl()) as site:
        page = site.page
        await page.goto(site.url)
        assert page.url.endswith("/login")
        await page.fill("#token", "wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("not this node's token")
        await page.fill("#token", TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#node")).to_have_text("gw1")
        await expect(page.locator("#facts")).to_contain_text("active")
        await expect(page.locator("#facts")).to_contain_text("41 / 41")
        await expect(page.locator("#age")).to_contain_text("live")
        for service_id in (WEB, DNS, SSH):
            await expect(site.row(service_id)).to_be_visible()
        await expect(site.row(WEB)).to_contain_text("deny 203.0.113.0/24, 10 new/s per /32, burst 20")
        await expect(page.locator("#topology .node.gateway")).to_have_count(2)
        await expect(page.locator("#topology .node.server")).to_have_count(6)
        # Only the 401 of the wrong token.
        assert [text for text in site.complaints if "401" not in text] == []
        await page.click("#logout")
        await page.wait_for_url("**/login")


async def test_a_server_goes_down_live_and_comes_back(site: Site) -> None:
    page = await site.open()
    row, node = site.row(WEB, SECOND_WEB), page.locator(f'#topology [aria-label^="Server {SECOND_WEB}"]')
    await expect(row.locator(".c-state .word")).to_have_text("up")
    site.control.set_health(WEB, SECOND_WEB, "down", "connect refused 3 times")
    await expect(row.locator(".c-state .word")).to_have_text("down")
    await expect(row.locator(".c-state")).to_contain_text("connect refused 3 times")
    await expect(row.locator(".c-weight .main")).to_have_text("2 → 0")
    await expect(site.row(WEB).locator(".c-state .word")).to_have_text("degraded")
    await expect(node.locator("use.sign")).to_have_attribute("href", "#mark-down")
    await expect(page.locator("#tiles")).to_contain_text("1 down")
    event = page.locator("#journal li").first
    await expect(event).to_contain_text("went down: connect refused 3 times")
    site.control.set_health(WEB, SECOND_WEB, "up", "status 200 in 2 ms")
    await expect(row.locator(".c-state .word")).to_have_text("up")
    await expect(node.locator("use.sign")).to_have_attribute("href", "#mark-up")


async def test_filter_sort_and_their_address(site: Site) -> None:
    page = await site.open()
    await page.keyboard.press("/")
    await expect(page.locator("#filter")).to_be_focused()
    await page.keyboard.type("udp direct")
    await expect(page.locator("tr.service")).to_have_count(1)
    await expect(page.locator("#count")).to_have_text("1 of 3 services, 2 of 6 servers")
    await expect(page.locator("#topology .node.server")).to_have_count(2)
    assert "q=udp+direct" in page.url
    await page.keyboard.press("Escape")
    await expect(page.locator("tr.service")).to_have_count(3)

    ids = page.locator("tbody[data-row]")
    await page.get_by_role("button", name="Conn/s").click()
    await expect(page.locator("th[aria-sort=descending]")).to_contain_text("Conn/s")
    assert await ids.evaluate_all("all => all.map(one => one.dataset.row)") == [WEB, DNS, SSH]
    await page.get_by_role("button", name="Conn/s").click()
    await expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Conn/s")
    assert await ids.evaluate_all("all => all.map(one => one.dataset.row)") == [SSH, DNS, WEB]
    servers = page.locator(f'tr[data-row^="{WEB}/"] th code')
    assert (await servers.all_text_contents())[0] == "198.51.100.33:80"  # the lightest
    await page.reload()
    await expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Conn/s")
    await expect(ids.first).to_have_attribute("data-row", SSH)


async def test_problems_only_folding_and_empty_states(site: Site) -> None:
    page = await site.open()
    await page.get_by_label("Problems only").check()
    await expect(page.locator("#rows .empty")).to_have_text("No problems: all 3 services are ok.")
    site.control.set_health(DNS, "198.51.100.31:53", "down", "timeout after 1 s")
    await expect(page.locator("tr.server")).to_have_count(1)
    await page.get_by_label("Problems only").uncheck()
    await page.fill("#filter", "nowhere")
    await expect(page.locator("#rows .empty")).to_contain_text("Filtered out")
    await expect(page.locator("#topology .empty")).to_contain_text("nowhere")
    await page.get_by_role("button", name="Clear the filter").click()
    await expect(page.locator("tr.server")).to_have_count(6)
    await page.get_by_role("button", name=f"Hide the servers of {WEB}").click()
    await expect(page.locator("tr.server")).to_have_count(3)
    site.control.services.set(())
    await expect(page.locator("#rows .empty")).to_contain_text("No services are configured")
    await expect(page.locator("#topology")).to_contain_text("lbctl apply")


async def test_problems_name_key_field_reason_as_plain_text(site: Site) -> None:
    page = await site.open()
    await expect(page.locator("#problems")).to_be_hidden()
    markup = "<img src=x onerror=alert(1)>"
    site.control.add_problem(Problem(f"services/{WEB}", "weigth", markup, "did you mean weight?"))
    problem = page.locator(".problem")
    for part in (f"services/{WEB}", "weigth", markup, "did you mean weight?"):
        await expect(problem).to_contain_text(part)
    assert await page.locator("img[src=x]").count() == 0
    site.control.node_status.update(
        lambda old: replace(
            old,
            store=StoreHealth("etcd", False, "", old.time, "connect refused"),
            revision=44,
            nodes=(old.nodes[0], replace(old.nodes[1], reachable=False, seen=old.time - 30)),
        )
    )
    await expect(page.locator("#facts")).to_contain_text("not connected")
    await expect(page.locator("#facts")).to_contain_text("41 / 44")
    await expect(page.locator("#problems")).to_contain_text("node gw2")
    await expect(page.locator("#topology .gateway.tone-bad")).to_contain_text("unreachable")


async def test_journal_filter(site: Site) -> None:
    page = await site.open()
    await expect(page.locator("#journal")).to_contain_text("Nothing has happened since gw1 started")
    site.control.set_health(WEB, SECOND_WEB, "down", "timeout")
    await site.row(WEB, "198.51.100.31:80").get_by_role("button", name="Drain").click()
    await expect(page.locator("#journal li")).to_have_count(2)
    await page.locator("#kinds").get_by_role("button", name="health").click()
    await expect(page.locator("#journal li")).to_have_count(1)
    await expect(page.locator("#journal li")).to_contain_text("went down")
    assert "kinds=health" in page.url


async def test_journal_shows_bad_news_as_bad(site: Site) -> None:
    """Also where the words of good news stand in it: "could not be programmed", "not connected"."""
    page = await site.open()
    site.control.journal.record(Kind.DATAPLANE, "tcp:192.0.2.10:80", "could not be programmed", "no scheduler lblc")
    await expect(page.locator("#journal li").first).to_have_attribute("data-tone", "bad")
    site.control.journal.record(Kind.DATAPLANE, "tcp:192.0.2.10:80", "programmed at last")
    await expect(page.locator("#journal li").first).to_have_attribute("data-tone", "ok")


async def test_highlighting_the_way_and_jumping_to_the_row(site: Site) -> None:
    page = await site.open()
    await page.locator(f'#topology [aria-label^="Server {SECOND_WEB}"]').focus()
    lit = await page.locator("#topology .node.lit .name").all_text_contents()
    assert sorted(lit) == sorted(["clients", "gw1", "192.0.2.10:80", SECOND_WEB])
    await expect(page.locator("#topology .node.service.lit")).to_have_css("opacity", "1")
    await expect(page.locator("#topology .node.service:not(.lit)").first).to_have_css("opacity", "0.22")
    await page.keyboard.press("Enter")
    await expect(site.row(WEB, SECOND_WEB)).to_be_focused()


async def test_large_clusters_are_capped(browser: Browser) -> None:
    many = tuple(
        service(f"tcp:192.0.2.{n}:80", [server(f"198.51.100.{m}:80", 1) for m in range(1, 41)]) for n in range(1, 61)
    )
    async with site_of(browser, FakeControl(many)) as site:
        page = await site.open()
        await expect(page.locator("#topology .node.service")).to_have_count(8)
        await expect(page.locator("#topology .node.more").last).to_contain_text("52 more")
        await expect(page.locator("tr.service")).to_have_count(50)
        await expect(page.locator("tbody").first.locator("tr.server")).to_have_count(20)
        await page.get_by_role("button", name="10 more services").click()
        await expect(page.locator("tr.service")).to_have_count(60)
        await page.get_by_role("button", name="20 more of 40 servers").first.click()
        await expect(page.locator("tbody").first.locator("tr.server")).to_have_count(40)
        assert site.complaints == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1440, 900)])
async def test_no_sideways_scrolling(browser: Browser, width: int, height: int) -> None:
    async with site_of(browser, FakeControl(), width, height) as site:
        page = await site.open()
        await expect(page.locator("#topology .node.server")).to_have_count(6)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        box = await page.locator("#topology svg.map").bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
        drain = site.row(WEB, SECOND_WEB).get_by_role("button", name="Drain")
        await drain.scroll_into_view_if_needed()
        await expect(drain).to_be_in_viewport()


async def test_screenshot(browser: Browser, tmp_path: Path) -> None:
    """A picture is made in both schemes; LBNODE_SCREENSHOT names where the README's one goes."""
    await shoot(browser, tmp_path / "dark.png", 390, 844, "dark")
    target = Path(os.environ.get("LBNODE_SCREENSHOT", tmp_path / "light.png"))
    await shoot(browser, target, 1440, 1150, "light")
    for path in (target, tmp_path / "dark.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000
