"""Packets with what became of them, as a pcapng file that grows while they come."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from aiohttp import web

from lbnode.capture import CaptureRequest
from web.api.request import CONTROL, STILL_ALLOWED, V1, WHO, Routes, body_of
from web.openapi import Operation
from web.pcapng import MEDIA, Pcapng
from web.schemas import CaptureBody
from web.stream import WRITE_DEADLINE_S


async def capture(request: web.Request) -> web.StreamResponse:
    """The answer begins with the capture, so that a refusal has its status. It ends early if the client leaves."""
    wanted = CaptureRequest.parse(**(await body_of(request, CaptureBody)).model_dump())
    file = Pcapng(wanted.snap)
    missed = 0
    async with aclosing(request.app[CONTROL].capture(wanted, request[WHO])) as found:
        await anext(found)
        response = web.StreamResponse(headers={"Content-Type": MEDIA})
        await response.prepare(request)
        try:
            await response.write(file.begin())
            async for captured in found:
                missed = captured.missed
                if request.transport is None or request.transport.is_closing() or not request[STILL_ALLOWED]():
                    return response
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await response.write(file.packets(captured.packets))
            await response.write(file.end(missed, time.time_ns()))
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionResetError:
            pass  # the client left; there is nobody to tell
    return response


ROUTES: Routes = (
    (
        Operation(
            "POST",
            V1 + "/capture",
            "capture",
            "Packets that match with what became of them, as a pcapng file; one capture at a time",
            media=MEDIA,
            request=CaptureBody,
            errors=(400, 404, 500),
        ),
        capture,
    ),
)
