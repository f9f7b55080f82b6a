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
WEB, BESIDE = f"tcp:{VIP}:{PORT}", f"tcp:{VIP}:{PORT + 1}"
OTHER = "192.0.2.101"  # the client's second address
RATE, BURST, TRIES = 1, 3, 12
Figures = dict[tuple[str, str], float]  # (service, name) -> packets


class Gateway:
    """lbnoded in the lab's gateway, one service whose document is changed, and one beside it."""

    def __init__(self, lab: Lab, root: Path) -> None:
        prefix = ("ip", "netns", "exec", lab.net.ns("gw"))
        self.lab = lab
        self.daemon = Daemon(root / "gw", plane="xdp", prefix=prefix, toml='interfaces = ["front", "back"]\n')
        self._document = root / "lb.yaml"

    def apply(self, **access: object) -> None:
        service = {"scheduler": "rr", "servers": {f"{server_address(1)}:{PORT}": {}}}
        self._document.write_text(yaml.safe_dump({"services": {BESIDE: service, WEB: {**service, **access}}}))
        done = self.daemon.run("lbctl", "apply", "-f", str(self._document), "--wait")
        assert done.returncode == 0, done.stderr

    def cookies(self) -> dict[str, int]:
        events = self.daemon.status()["dataplane"]["events"]
        return {f"cookies_{what}": int(events[f"cookie-{what}"]) for what in ("sent", "accepted")}

    def drops(self, reason: str) -> int:
        return int(self.daemon.status()["dataplane"]["drops"][reason])

    def told(self) -> tuple[Figures, Figures]:
        """What services did about new connections, without what is 0: by the API, and by /metrics."""
        api: Figures = {}
        for service in (WEB, BESIDE):
            found = dict(self.daemon.service(service)["admission"])
            api |= {(service, name): count for name, count in {**found.pop("refused"), **found}.items() if count}
        metrics: Figures = {}
        for sample in self.daemon.metrics():
            of = sample.labels
            if sample.name == "lbnode_service_refused_packets_total" and sample.value:
                metrics[of["service"], of["reason"]] = sample.value
            elif sample.name == "lbnode_service_syn_cookies_total" and sample.value:
                metrics[of["service"], f"cookies_{of['outcome']}"] = sample.value
        return api, metrics

    def settles_at(self, **expected: int) -> bool:
        """Exactly this of the one service, and nothing of the other; `expected`: names as the API has them."""
        figures = {(WEB, name): count for name, count in expected.items()}
        return self.told() == (figures, figures)

    def connect(self, source: str, timeout: float = 5.0, port: int = PORT) -> socket.socket:
        return self._call(lambda: socket.create_connection((VIP, port), timeout, (source, 0)))

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
    until(lambda: gateway.settles_at(denied=gateway.drops("denied")), "each SYN is counted for its service alone")


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
    limits = {"lbnode_service_new_connections_limit": RATE, "lbnode_service_new_connections_burst": BURST}
    assert {one.name: one.value for one in gateway.daemon.metrics() if one.name in limits} == limits
    until(lambda: gateway.settles_at(rate=gateway.drops("rate")), "each SYN is counted for its service alone")
    gateway.apply(syn_proxy=0)
    with gateway.connect(OTHER) as proxied, gateway.connect(OTHER, port=PORT + 1) as beside:
        assert ask(proxied) == ask(beside) == "rs1"
    until(lambda: gateway.settles_at(rate=gateway.drops("rate"), **gateway.cookies()), "so are cookies")
