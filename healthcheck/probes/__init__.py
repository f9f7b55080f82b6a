"""Probes: one attempt each, one deadline over the whole of it, a Result with a reason an operator can act on.

`start(target)` begins a probe and returns its future: await it, or cancel it, which closes its socket at once.
A server's fault is a Result; a fault of this machine (no file descriptors left) is ProbeImpossible and says nothing
about the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from healthcheck.probes import dns, http, ping, script, smtp, tcp, udp
from healthcheck.probes.errors import ProbeImpossible
from healthcheck.spec import CheckType, Result, Target

__all__ = ["ProbeImpossible", "start"]


_PROBES: Mapping[CheckType, Callable[[Target], Coroutine[Any, Any, Result]]] = MappingProxyType({
    CheckType.HTTP: http.probe, CheckType.HTTPS: http.probe, CheckType.DNS: dns.probe, CheckType.PING: ping.probe,
    CheckType.UDP: udp.probe, CheckType.SMTP: smtp.probe, CheckType.SCRIPT: script.probe,
})  # fmt: skip


def start(target: Target) -> asyncio.Future[Result]:
    """Begin the probe that the target's spec asks for."""
    if target.spec.type is CheckType.TCP:
        return tcp.probe(target)
    return asyncio.get_running_loop().create_task(_PROBES[target.spec.type](target))
