"""Pictures of the page with a lively cluster behind it.

python -m tests.web.screenshot DIRECTORY       every size and scheme
LBNODE_SCREENSHOT=FILE pytest tests/web        the README's one
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from lbnode.journal import Kind
from lbnode.model import Problem
from tests.web.fake_control import DNS, WEB, FakeControl
from web.app import make_app, serve

TOKEN = "a token"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


FIRST_FRAME_S = 60  # a browser just installed reads hundreds of megabytes before it draws anything


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser that draws: launching returns before its GPU process does, and the page renders frame by frame."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGS)
        try:
            page = await browser.new_page()
            async with asyncio.timeout(FIRST_FRAME_S):
                await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            await page.close()
            yield browser
        finally:
            await browser.close()


def lively(control: FakeControl) -> None:
    """A minute of traffic with some trouble in it."""
    control.journal.record(Kind.NODE, "gw1", "started", "version 0.1.0")
    control.journal.record(Kind.STORE, "http://198.51.100.11:2379", "connected")
    control.journal.record(Kind.ELECTION, "front", "became active", "no advertisement heard for 0.36 s")
    control.journal.record(Kind.SYNC, "gw2", "in-sync", "bulk transfer of 1204 records")
    for second in range(70):
        if second == 25:
            control.set_health(WEB, "198.51.100.32:80", "down", "connect refused 3 times")
        if second == 50:
            control.change_server(DNS, "198.51.100.32:53", drain=True)
            control.journal.record(Kind.CONFIG, f"{DNS}/198.51.100.32:53", "changed: drain True", who="alice")
        control.tick()
    control.add_problem(
        Problem(
            f"services/{WEB}/servers/198.51.100.34:80",
            "weigth",
            "unknown field; the server was not added",
            'did you mean "weight"?',
        )
    )


async def log_in(page: Page, url: str) -> None:
    await page.goto(url)
    await page.fill("#token", TOKEN)
    await page.click("text=Log in")
    await page.wait_for_selector("[data-link=live] tr.server")


async def ticking(control: FakeControl) -> None:
    while True:
        await asyncio.sleep(1)
        control.tick()


async def shoot(browser: Browser, path: Path, width: int, height: int, scheme: str, *, whole: bool = False) -> None:
    """One PNG of the page at this size; `whole` takes all of its height."""
    control = FakeControl()
    lively(control)
    server = await serve(make_app(control, token=TOKEN, metrics=None), None)
    ticks = asyncio.create_task(ticking(control))
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    try:
        page = await context.new_page()
        await log_in(page, f"http://127.0.0.1:{server.port}/")
        await page.wait_for_selector("#topology .node.server")
        await page.wait_for_selector("#journal code")
        await page.screenshot(path=path, full_page=whole)
    finally:
        ticks.cancel()
        await context.close()
        await server.close()


async def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    async with chromium() as browser:
        for scheme in ("light", "dark"):
            await shoot(browser, directory / f"laptop-{scheme}.png", 1440, 900, scheme)
            await shoot(browser, directory / f"phone-{scheme}.png", 390, 844, scheme, whole=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take pictures of the page in every size and scheme.")
    parser.add_argument("directory", type=Path)
    asyncio.run(main(parser.parse_args().directory))
