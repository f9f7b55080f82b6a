"""The real page in real Chromium: the time line of a VIP group's election."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.async_api import Browser, expect

from lbnode.journal import Kind
from lbnode.model import VrrpState
from tests.web.fake_control import WEB, FakeControl
from tests.web.site import SECOND_WEB, Site, site_of

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


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
