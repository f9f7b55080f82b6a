"""The real page in real Chromium, driven as an operator would, against a cluster that the test changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect
from playwright.async_api import Error as PlaywrightError

from lbnode.journal import Kind
from lbnode.model import Problem, VrrpState
from lbnode.store.base import StoreHealth
from tests.web.fake_control import DNS, SSH, WEB, FakeControl, server, service
from tests.web.screenshot import TOKEN, chromium, log_in, shoot, ticking
from web.app import WebServer, make_app, serve

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]
SECOND_WEB = "198.51.100.32:80"
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@dataclass
class Site:
    """A served cluster, one page on it, and what the page complained about."""

    control: FakeControl
    server: WebServer
    page: Page
    complaints: list[str]
    ticks: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"

    def row(self, service_id: str, server_id: str = "") -> Locator:
        """A server's row, or a service's first row."""
        if server_id:
            return self.page.locator(f'tr[data-row="{service_id}/{server_id}"]')
        return self.page.locator(f'tbody[data-row="{service_id}"] tr.service')

    async def open(self, query: str = "") -> Page:
        await log_in(self.page, self.url)
        if query:
            await self.page.goto(self.url + query)
            await self.page.wait_for_selector("[data-link=live]")
        return self.page


@contextlib.asynccontextmanager
async def site_of(browser: Browser, control: FakeControl, width: int = 1440, height: int = 900) -> AsyncIterator[Site]:
    control.tick()
    running = await serve(make_app(control, token=TOKEN, metrics=None), None)
    ticks = asyncio.create_task(ticking(control))
    context = await browser.new_context(viewport={"width": width, "height": height})
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    unanswered: set[str] = set()
    page.on("request", lambda request: unanswered.add(request.url))
    page.on("requestfinished", lambda request: unanswered.discard(request.url))
    page.on("requestfailed", lambda request: unanswered.discard(request.url))
    try:
        yield Site(control, running, page, complaints, ticks)
    except AssertionError as error:
        error.add_note(f"the page complained of {complaints}, waits for {unanswered}, body: {await _body(page)}")
        raise
    finally:
        ticks.cancel()
        await context.close()
        await running.close()


async def _body(page: Page) -> str:
    """What the page says of itself, for the report of a failure."""
    try:
        return str(await page.evaluate("[location.href, document.hidden, {...document.body.dataset}]"))
    except PlaywrightError as error:
        return f"no answer: {error}"


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser, FakeControl()) as made:
        yield made
        assert made.complaints == []


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


async def test_drain_by_clicking(site: Site) -> None:
    await site.open()
    row = site.row(WEB, SECOND_WEB)
    await row.get_by_role("button", name="Drain").click()
    await expect(row.locator(".chip")).to_contain_text("drain")
    await expect(row.locator(".c-weight .main")).to_have_text("2 → 0")
    assert site.control.requests == [("set_server", (WEB, SECOND_WEB, {"drain": True}, "web:127.0.0.1"))]
    await expect(site.page.locator("#journal li").first).to_contain_text("by web:127.0.0.1")
    await row.get_by_role("button", name="Undrain").click()
    await expect(row.locator(".chip")).to_be_hidden()
    await expect(row.locator(".c-weight .main")).to_have_text("2")
    assert site.control.requests[-1][1][2] == {"drain": False}


async def test_draining_the_last_server_asks_first(site: Site) -> None:
    page = await site.open()
    drain = site.row(SSH, "[2001:db8:1::31]:22").get_by_role("button", name="Drain")
    await drain.click()
    await expect(page.get_by_role("dialog")).to_contain_text("refuses every new connection")
    await page.get_by_role("button", name="Cancel").click()
    assert site.control.requests == []
    await drain.click()
    await page.get_by_role("button", name="Drain the last server").click()
    await expect(site.row(SSH).locator(".c-state .word")).to_have_text("down")
    assert site.control.requests[0][1][:3] == (SSH, "[2001:db8:1::31]:22", {"drain": True})


async def test_weight_dialog_says_what_it_will_do(site: Site) -> None:
    page = await site.open()
    await site.row(WEB, "198.51.100.31:80").locator("button.weight").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("50 % of new connections")
    await dialog.get_by_role("spinbutton").fill("9")
    await expect(dialog).to_contain_text("75 % of new connections")
    await page.keyboard.press("Enter")
    await expect(site.row(WEB, "198.51.100.31:80").locator("button.weight")).to_have_text("9")
    assert site.control.requests[0][1][2] == {"weight": 9}
    # The browser itself refuses what is out of range.
    await site.row(WEB, "198.51.100.31:80").locator("button.weight").click()
    await dialog.get_by_role("spinbutton").fill("70000")
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    assert len(site.control.requests) == 1


async def test_a_refused_change_says_why(browser: Browser) -> None:
    async with site_of(browser, FakeControl()) as site:
        page = await site.open()
        site.control.store_down = True
        await site.row(WEB, SECOND_WEB).get_by_role("button", name="Drain").click()
        await expect(page.locator(".toast.bad")).to_have_text("etcd: none of 3 endpoints answers")
        assert all("503" in text for text in site.complaints)


async def test_handover(site: Site) -> None:
    page = await site.open()
    await page.get_by_role("button", name="Hand over").click()
    await expect(page.get_by_role("dialog")).to_contain_text("gw2 (priority 150)")
    await page.get_by_role("dialog").get_by_role("button", name="Hand over").click()
    await expect(page.locator(".toast")).to_contain_text("front")
    assert site.control.requests == [("handover", "front")]
    # The other node takes over; the page follows.
    role = site.control.node_status.value.roles[0]
    backup = replace(role, state=VrrpState.BACKUP, reason="handed over")
    site.control.node_status.update(lambda old: replace(old, roles=(backup,)))
    await expect(page.locator("#facts")).to_contain_text("backup")
    await expect(page.get_by_role("button", name="Hand over")).to_have_count(0)


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


async def test_the_time_line_of_a_vip_groups_election(site: Site) -> None:
    record = site.control.record_past
    record(7150, Kind.ELECTION, "front", "became active", "no advertisement heard for 0.36 s")
    record(875, Kind.ELECTION, "front", "became backup", "released to gw2")
    record(800, Kind.ELECTION, "back", "became active", "of another group")
    record(275, Kind.ELECTION, "front", "became active", "no advertisement from gw2 for 312 ms")
    for number in range(300):  # more than the stream begins with
        record(60, Kind.HEALTH, f"{WEB}/{SECOND_WEB}", f"was checked the {number}th time")
    page = await site.open()
    await page.locator("#details summary").focus()
    await page.keyboard.press("Enter")
    line = page.get_by_role("list", name="Election of VIP group front")
    items = line.get_by_role("listitem")
    await expect(items).to_have_text(
        [
            re.compile(r"^5 min ago\s*gw1 became active: no advertisement from gw2 for 312 ms active until now$"),
            re.compile(r"^15 min ago\s*gw1 became backup: released to gw2\s*$"),
            re.compile(r"^1 h 59 ago\s*gw1 became active: no advertisement heard for 0.36 s active for 1 h 44$"),
            re.compile(r"^2 h 00 ago\s*gw2 became backup: started\s*$"),
        ]
    )
    await expect(items.locator("use").first).to_have_attribute("href", "#mark-active")
    await page.keyboard.press("Tab")
    await expect(line).to_be_focused()
    shown = await items.first.locator("time").evaluate("one => [getComputedStyle(one, '::after').content, one.title]")
    assert shown[0] == f'"{shown[1]}"' and re.search(r"\d+:\d\d:\d\d", shown[1])  # the full time, as on hover
    site.control.journal.record(Kind.ELECTION, "front", "became backup", "<b>released</b>")
    await expect(items.first).to_contain_text("gw1 became backup: <b>released</b>")
    await expect(items.nth(1)).to_contain_text("active for 5 min")


async def test_the_time_line_says_when_there_was_no_election(browser: Browser) -> None:
    control = FakeControl()
    starting = replace(control.node_status.value.roles[0], state=VrrpState.INITIALIZE, reason="starting")
    nodes = tuple(replace(node, roles=(starting,)) for node in control.node_status.value.nodes)
    control.node_status.update(lambda old: replace(old, roles=(starting,), nodes=nodes))
    async with site_of(browser, control, 390, 844) as site:
        page = await site.open()
        await page.locator("#details summary").click()
        line = page.get_by_role("list", name="Election of VIP group front")
        await expect(line).to_contain_text("No node has become active or backup in front since gw1 started")
        active = replace(
            starting, state=VrrpState.ACTIVE, reason="no advertisement for a " + "very" * 40 + " long time"
        )
        lost = replace(control.node_status.value.nodes[1], roles=(active,), reachable=False)
        control.node_status.update(lambda old: replace(old, nodes=(old.nodes[0], lost)))
        await expect(line).to_contain_text("gw2 became active: no advertisement")
        await expect(line).to_contain_text("not heard of for")
        await expect(line.locator("use")).to_have_attribute("href", "#mark-down")
        await expect(line).not_to_contain_text("until now")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390


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
