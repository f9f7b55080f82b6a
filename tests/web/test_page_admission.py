"""What the page shows of those who are kept out, and of a data plane that runs out of room."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.async_api import expect

from lbnode.alarms import TableAlarm
from lbnode.control import AccessLimits
from lbnode.model import Admission
from tests.web.fake_control import DNS, WEB
from tests.web.site import Site

pytestmark = [pytest.mark.chromium, pytest.mark.asyncio(loop_scope="module")]


async def test_whom_a_service_admits_and_whom_it_refused(site: Site) -> None:
    """UDP services, too; a line for what was refused only where something was."""
    page = await site.open()
    names = {name: site.row(name).locator(".c-id > .sub") for name in (DNS, WEB)}
    await expect(names[DNS].first).not_to_contain_text("allow")
    await expect(names[DNS].nth(1)).to_be_empty()

    def change(**fields: object) -> None:
        services = site.control.services.value
        site.control.services.set(tuple(replace(s, **fields) if s.id == DNS else s for s in services))  # type: ignore[arg-type]

    change(access="allow 203.0.113.0/24, 10 new/s per /32, burst 20", limits=AccessLimits(allow=1))
    await expect(names[DNS].first).to_contain_text("allow 203.0.113.0/24, 10 new/s per /32, burst 20")
    quiet = Admission({"denied": 0, "rate": 0, "no-server": 0})
    change(admission=replace(quiet, refused={**quiet.refused, "denied": 12_345, "rate": 7}))
    await expect(names[DNS].nth(1)).to_have_text("refused: denied 12 k, rate 7")
    change(admission=replace(quiet, cookies_sent=40, cookies_accepted=38, mss_clamped=7))
    await expect(names[DNS].nth(1)).to_have_text("SYN cookies: sent 40, accepted 38 · MSS: clamped 7")
    await expect(names[WEB].nth(1)).to_be_empty()
    change(admission=quiet)
    await expect(names[DNS].nth(1)).to_be_empty()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1440


async def test_a_table_that_fills_up_insert_failures_drops_and_the_load_of_cpus(site: Site) -> None:
    page = await site.open()
    tile = page.locator(".tile").last
    await expect(tile).to_contain_text("0.1 % used")
    await expect(tile).not_to_have_attribute("data-tone", "bad")
    await page.locator("#details summary").click()
    details = page.locator("#detail-body")
    await expect(details).to_contain_text(re.compile(r"CPU 0: 75 % \(now 0/s\), CPU 1: 25 % \(now 0/s\) of 40 k"))

    status = site.control.node_status.value
    plane = replace(
        status.dataplane,
        connections=850_000,
        drops={"table-full": 9, "denied": 31, "no-server": 0},
        events={"untracked": 4, "evicted": 17},
        cpu_packets=(30_000, 910_000),
    )
    _, problem = TableAlarm().look(replace(plane, drops={}))
    assert problem is not None
    site.control.node_status.update(lambda old: replace(old, dataplane=plane, problems=(problem,)))
    await expect(page.locator(".problem")).to_contain_text("connection table: 850000 of 1048576 connections")
    await expect(tile).to_have_attribute("data-tone", "bad")
    await expect(tile).to_contain_text("81.1 % used, 13 had no room")
    await expect(details).to_contain_text("table-full 9, denied 31")
    await expect(details).to_contain_text("untracked 4, evicted 17")
    await expect(details).to_contain_text("9 packets of new connections dropped, 4 forwarded by hash without an entry")
    await expect(details).to_contain_text(re.compile(r"CPU 0: 3 % \(now 0/s\), CPU 1: 97 % \(now \d+ k/s\) of 940 k"))
