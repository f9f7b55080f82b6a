"""Probes: one attempt each, one deadline over the whole of it, a Result with a reason an operator can act on.

`start(target)` begins a probe and returns its future: await it, or cancel it, which closes its socket at once.
A server's fault is a Result; a fault of this machine (no file descriptors left) is ProbeImpossible and says nothing
about the server.
"""

from __future__ import annotations

import asyncio

from healthcheck.probes import http, tcp
from healthcheck.probes.errors import ProbeImpossible
from healthcheck.spec import CheckType, Result, Target

__all__ = ["ProbeImpossible", "start"]


def start(target: Target) -> asyncio.Future[Result]:
    """Begin the probe that the target's spec asks for."""
    if target.spec.type is CheckType.TCP:
        return tcp.probe(target)
    return asyncio.get_running_loop().create_task(http.probe(target))
