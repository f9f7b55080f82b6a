"""`lbctl explain` on a gateway that carries traffic: what it says is what then happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.netns.xdp_lab import AT_TC, CLIENT, PORT, VIP, Lab, ask, server_address
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.root
WEB = f"tcp:{VIP}:{PORT}"


def document(tmp_path: Path) -> str:
    servers = "".join(f"      {server_address(number)}:{PORT}: {{}}\n" for number in (1, 2))
    path = tmp_path / "lb.yaml"
    path.write_text(f"services:\n  {WEB}:\n    scheduler: rr\n    servers:\n{servers}")
    return str(path)


def served_by(name: str) -> str:
    """A server's id by what it calls itself, rsN."""
    return f"{server_address(int(name.removeprefix('rs')))}:{PORT}"


def test_a_gateway_says_what_it_does(tmp_path: Path) -> None:
    with Lab(servers=2) as lab:
        prefix = ("ip", "netns", "exec", lab.net.ns("gw"))
        daemon = Daemon(tmp_path / "gw", plane="xdp", prefix=prefix, toml='interfaces = ["front", "back"]\n')
        try:
            daemon.start()
            done = daemon.run("lbctl", "apply", "-f", document(tmp_path), "--wait")
            assert done.returncode == 0, done.stderr

            def explain(*words: str) -> Any:
                found = daemon.run("lbctl", "explain", *words, "-o", "json")
                assert found.returncode == 0, found.stderr
                return json.loads(found.stdout)

            with lab.connect() as sock:
                client_port = sock.getsockname()[1]
                first = served_by(ask(sock))
                told = explain("tcp", f"{CLIENT}:{client_port}", f"{VIP}:{PORT}")
                assert (told["reason"], told["server"], told["interface"]) == ("connection", first, "front")
                reply = explain("tcp", first, f"{CLIENT}:{client_port}")
                assert (reply["verdict"], reply["interface"], reply["hook"]) == ("to-client", "back", AT_TC)
                assert (reply["next_hop"]["interface"], reply["next_hop"]["address"]) == ("front", CLIENT)
                until(lambda: daemon.service(WEB)["counters"]["connections"] == 1, "one is counted")
            # Asking twice moves nothing: both times it is the server whose turn it is, and that is who gets it.
            new = [explain("tcp", f"{CLIENT}:{port}", f"{VIP}:{PORT}") for port in (1, 1)]
            assert new[0]["server"] == new[1]["server"] != first
            assert new[0]["next_hop"]["address"] == new[0]["server"].split(":")[0]
            with lab.connect() as sock:
                assert served_by(ask(sock)) == new[0]["server"]
            until(
                lambda: daemon.service(WEB)["counters"]["connections"] == 2,
                "the second one, and none that was asked for",
            )

            # Two connections: SYN, ACK, a line, its ACK in; SYN ACK, an answer out; closing them aside.
            plane = until(lambda: _busy(daemon.status()["dataplane"], 12), "packets by CPU")
            assert set(plane["events"].values()) == {0} and plane["drops"]["table-full"] == 0

            text = daemon.run("lbctl", "explain", "tcp", f"{CLIENT}:1", f"{VIP}:81").stdout
            assert f"{VIP} is a VIP, but nothing serves tcp port 81: {WEB}" in text
            wrong = daemon.run("lbctl", "explain", "tcp", f"{CLIENT}:1", f"{VIP}:{PORT}", "--interface", "eth9")
            assert wrong.returncode == 3 and "eth9 does not exist here" in wrong.stderr
        finally:
            daemon.close()


def _busy(plane: Any, packets: int) -> Any:
    return plane if sum(plane["cpu_packets"]) >= packets else None
