"""The real page in real Chromium: what an operator changes with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.async_api import Browser, expect

from lbnode.model import VrrpState
from tests.web.fake_control import SSH, WEB, FakeControl
from tests.web.site import SECOND_WEB, Site, site_of

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


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
    await page.get_by_role("button", name="Hand over").dblclick()  # asks once
    await expect(page.get_by_role("dialog")).to_contain_text("gw2 (priority 150) is expected to take over")
    await page.get_by_role("dialog").get_by_role("button", name="Hand over").click()
    await expect(page.locator(".toast")).to_contain_text("front")
    assert site.control.requests == [("handover", "front")]
    # The other node takes over; the page follows.
    role = site.control.node_status.value.roles[0]
    backup = replace(role, state=VrrpState.BACKUP, reason="handed over")
    site.control.node_status.update(lambda old: replace(old, roles=(backup,)))
    await expect(page.locator("#facts")).to_contain_text("backup")
    await expect(page.get_by_role("button", name="Hand over")).to_have_count(0)


async def test_a_handover_names_nobody_in_maintenance(browser: Browser) -> None:
    """The page tells what the node says, as lbctl does: a Backup in maintenance is nobody's heir."""
    async with site_of(browser, control := FakeControl()) as site:
        page = await site.open()
        ask, dialog = page.get_by_role("button", name="Hand over"), page.get_by_role("dialog")
        third = replace(control.node_status.value.nodes[1], name="gw3")
        third = replace(third, roles=(replace(third.roles[0], priority=100),))
        control.node_status.update(lambda old: replace(old, nodes=(*old.nodes, third)))
        control.resting = ("gw2",)
        await expect(page.locator("#topology")).to_contain_text("gw3")
        await ask.click()
        await expect(dialog).to_contain_text("gw3 (priority 100) is expected to take over")
        await dialog.get_by_role("button", name="Cancel").click()
        control.node_status.update(lambda old: replace(old, nodes=old.nodes[:2]))
        await ask.click()
        await expect(page.locator(".toast.bad")).to_contain_text("no other node is backup now: nobody would take over")
        await expect(dialog).to_be_hidden()
        unheard = replace(control.node_status.value.nodes[1], reachable=False)
        control.node_status.update(lambda old: replace(old, nodes=(old.nodes[0], unheard)))
        control.resting, control.silent = (), ("gw2",)
        await ask.click()
        await expect(dialog).to_contain_text("It is not known here whether there is one")
        assert control.requests == [] and all("400" in text for text in site.complaints)
