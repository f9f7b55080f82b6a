"""Who may open connections to a service, with real clients of a real gateway, as the store changes it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.netns.xdp_lab import CLIENT, PORT, VIP, Lab, ask, server_address
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.root
WEB = f"tcp:{VIP}:{PORT}"
OTHER = "192.0.2.101"  # the client's second address
RATE, BURST, TRIES = 1, 3, 12


class Gateway:
    """lbnoded in the lab's gateway, and its one service's document."""

    def __init__(self, lab: Lab, root: Path) -> None:
        prefix = ("ip", "netns", "exec", lab.net.ns("gw"))
        self.lab = lab
        self.daemon = Daemon(root / "gw", plane="xdp", prefix=prefix, toml='interfaces = ["front", "back"]\n')
        self._document = root / "lb.yaml"

    def apply(self, **access: object) -> None:
        service = {"scheduler": "rr", "servers": {f"{server_address(1)}:{PORT}": {}}, **access}
        self._document.write_text(yaml.safe_dump({"services": {WEB: service}}))
        done = self.daemon.run("lbctl", "apply", "-f", str(self._document), "--wait")
        assert done.returncode == 0, done.stderr

    def drops(self, reason: str) -> int:
        return int(self.daemon.status()["dataplane"]["drops"][reason])

    def connect(self, source: str, timeout: float = 5.0) -> socket.socket:
        return self._call(lambda: socket.create_connection((VIP, PORT), timeout, (source, 0)))

    def begin(self, source: str) -> socket.socket:
        """A connection whose handshake goes on by itself."""

        def start() -> socket.socket:
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((source, 0))
            sock.connect_ex((VIP, PORT))
            return sock

        return self._call(start)

    def _call(self, what: Callable[[], socket.socket]) -> socket.socket:
        return self.lab.net.call("client", what)

    def denied(self, source: str) -> bool:
        """Its SYN is dropped and counted, and it does not get in."""
        before = self.drops("denied")
        with self.begin(source) as sock:
            until(lambda: self.drops("denied") > before, f"a SYN of {source} is denied")
            return not _established(sock)


def _established(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Lab(servers=1) as lab:
        lab.net.address("client", "eth0", f"{OTHER}/24")
        found = Gateway(lab, tmp_path)
        try:
            found.daemon.start()
            yield found
        finally:
            found.daemon.close()


def test_lists_keep_out_whom_they_name_as_the_store_changes(gateway: Gateway) -> None:
    gateway.apply(deny=[f"{CLIENT}/32"])
    assert gateway.denied(CLIENT)
    with gateway.connect(OTHER) as held:
        assert ask(held) == "rs1"
        gateway.apply(allow=[f"{CLIENT}/32"])
        with gateway.connect(CLIENT) as sock:
            assert ask(sock) == "rs1"
        assert gateway.denied(OTHER)
        assert ask(held) == "rs1", "what is established goes on"
    gateway.apply()
    with gateway.connect(CLIENT) as first, gateway.connect(OTHER) as second:
        assert ask(first) == ask(second) == "rs1"


def test_a_client_over_its_rate_gets_so_many_and_another_all(gateway: Gateway) -> None:
    gateway.apply(new_connections={"rate": RATE, "burst": BURST, "prefix": 32})
    begun = time.monotonic()
    with gateway.connect(CLIENT) as held:  # the first of its burst
        tried = [gateway.begin(CLIENT) for _ in range(TRIES)]
        try:
            until(lambda: gateway.drops("rate") >= TRIES - BURST, "its others are dropped")
            opened: list[socket.socket] = [sock for sock in tried if _established(sock)]
            allowed = BURST + RATE * (time.monotonic() - begun)
            assert BURST - 1 <= len(opened) <= allowed - 1, "beside the one that is held"
            assert ask(held) == "rs1"
            with gateway.connect(OTHER) as first, gateway.connect(OTHER) as second:
                assert ask(first) == ask(second) == "rs1"
        finally:
            for sock in tried:
                sock.close()
