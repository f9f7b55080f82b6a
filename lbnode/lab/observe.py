"""What a gateway of the lab holds and says, read the way an operator would: ip(8) and the API on its unix socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from lbnode.lab.lab import Lab
from lbnode.lab.namespaces import LabError

T = TypeVar("T")
SOCKET = "/run/lbnode/api.sock"


class NotInTime(LabError):
    """A condition did not come true before its deadline."""


def until(
    condition: Callable[[], T | None], expected: str, timeout_s: float, tick: Callable[[str], None] = lambda _text: None
) -> tuple[T, float]:
    """Ask until the answer is neither None nor False: (answer, seconds it took). NotInTime says what was expected."""
    began = time.monotonic()
    while True:
        answer = condition()
        passed = time.monotonic() - began
        if answer is not None and answer is not False:
            return answer, passed
        if passed > timeout_s:
            raise NotInTime(f"expected within {timeout_s:g} s: {expected}")
        tick(f"waiting: {expected}")
        time.sleep(0.02)


def api(lab: Lab, node: str, path: str) -> Any:
    """GET /api/v1/PATH of a gateway; None while it does not answer."""
    url = f"http://{node}/api/v1/{path}"
    done = lab.run(node, ["curl", "-sf", "-m", "3", "--unix-socket", SOCKET, url], check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def service(lab: Lab, node: str, service_id: str) -> Any:
    """One service with its servers, as a gateway reports it; None while it does not know it."""
    return api(lab, node, f"services/{quote(service_id, safe='')}")


def effective_weights(lab: Lab, node: str, service_id: str) -> dict[str, int | None]:
    """Server address -> weight in the data plane (None: not in it)."""
    found = service(lab, node, service_id)
    servers = found["servers"] if found else []
    return {server["id"].rpartition(":")[0]: server["effective_weight"] for server in servers}


def holds(lab: Lab, node: str, address: str) -> bool:
    """Whether a running container has an address on any interface."""
    if lab.pid(node) is None:
        return False
    done = lab.run(node, ["ip", "-json", "address", "show", "to", address], check=False)
    return done.returncode == 0 and any(link.get("addr_info") for link in json.loads(done.stdout or "[]"))


def holders(lab: Lab, address: str, nodes: tuple[str, ...] = ("gw1", "gw2")) -> tuple[str, ...]:
    return tuple(node for node in nodes if holds(lab, node, address))


def in_sync(lab: Lab, node: str) -> bool:
    """Whether a gateway says that its connection table equals that of every peer."""
    status = api(lab, node, "status")
    return bool(status and status["sync"]) and all(peer["state"] == "in-sync" for peer in status["sync"])


def role(lab: Lab, node: str) -> str | None:
    """State of a gateway's first VIP group ("active", "backup", ...); None while it has none or does not answer."""
    status = api(lab, node, "status")
    return str(status["roles"][0]["state"]) if status and status["roles"] else None
