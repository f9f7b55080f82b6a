"""A served cluster in real Chromium, for tests that drive its page as an operator would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from playwright.async_api import Browser, Locator, Page, expect
from playwright.async_api import Error as PlaywrightError

from tests.web.fake_control import FakeControl
from tests.web.screenshot import TOKEN, log_in, ticking
from web.app import WebServer, make_app, serve

SECOND_WEB = "198.51.100.32:80"
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


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
