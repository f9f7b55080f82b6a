"""Each type of check, from a document through a running node to the verdict that people see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS

from lbnode.cli.client import ApiError
from tests.health.servers import serve, serve_datagrams
from tests.health.test_smtp import speaking
from tests.node.daemon import Daemon, free_port, until

FAST = {"interval": 0.1, "timeout": 1, "rise": 1, "fall": 1}


def name_server(data: bytes) -> list[bytes]:
    question = DNS(data)
    return [bytes(DNS(id=question.id, qr=1, qd=question.qd))]


async def with_node(folder: Path, act: Callable[[Daemon], None]) -> None:
    daemon = Daemon(folder)

    def run() -> None:
        try:
            daemon.start()
            act(daemon)
        finally:
            daemon.close()

    await asyncio.to_thread(run)


def document(checks: dict[str, tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """A service for each check, with one server on loopback; the names are the ports of the services."""
    return {
        "services": {
            f"tcp:192.0.2.10:{number}": {
                "check": {"type": kind, **FAST, **fields},
                "servers": {f"127.0.0.1:{port}": {}},
            }
            for number, (kind, (port, fields)) in enumerate(checks.items(), 1)
        }
    }


async def test_servers_that_answer_are_up_and_others_are_down(tmp_path: Path) -> None:
    session = speaking(b"220 a\r\n", b"250 b\r\n", b"221 c\r\n")
    async with (
        serve_datagrams(name_server) as dns,
        serve_datagrams(lambda data: [data]) as echo,
        serve(session) as smtp,
    ):
        good: dict[str, tuple[int, dict[str, Any]]] = {
            "dns": (dns, {"dns_name": "example.net", "dns_type": "A"}),
            "udp": (echo, {"payload": "c0ffee", "reply": "c0xx"}),
            "smtp": (smtp, {"helo": "lb.example"}),
        }
        if os.geteuid() == 0:
            good["ping"] = (1, {})
        nobody = free_port()
        bad: dict[str, tuple[int, dict[str, Any]]] = {
            "dns": (nobody, {}), "udp": (nobody, {"reply": ""}), "smtp": (nobody, {}),
        }  # fmt: skip

        def verdicts(daemon: Daemon) -> list[tuple[str, str]]:
            services = daemon.client.get("/api/v1/services")["services"]
            return [(s["servers"][0]["health"], s["servers"][0]["health_reason"]) for s in services]

        def act(daemon: Daemon) -> None:
            daemon.client.call("POST", "/api/v1/apply", {"document": document(good), "prune": True, "dry_run": False})
            until(lambda: verdicts(daemon) == [("up", "")] * len(good), "all up")
            daemon.client.call("POST", "/api/v1/apply", {"document": document(bad), "prune": True, "dry_run": False})
            reasons = [("down", "port unreachable"), ("down", "port unreachable"), ("down", "connect refused")]
            until(lambda: verdicts(daemon) == reasons, "all down, each with its reason")

        await with_node(tmp_path, act)


async def test_a_path_is_no_script(tmp_path: Path) -> None:
    """Whoever may change the configuration must not be able to run what they like."""

    def act(daemon: Daemon) -> None:
        body = {"document": document({"script": (1, {"script": "/bin/sh"})}), "prune": False, "dry_run": False}
        with pytest.raises(ApiError, match="not the name of a file"):
            daemon.client.call("POST", "/api/v1/apply", body)

    await with_node(tmp_path, act)
