"""The VIP lease between real processes: whatever becomes of a node's processes, two nodes never answer for the VIP.

A third party asks both at once, by ARP and by ICMP echo to each node's MAC address, and looks who answers: what counts
is what the kernels do, not which addresses they hold.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest

from lbnode.election.packet import checksum
from lbnode.lab.netns import Net, ip
from lbnode.model import VipAddress
from tests.netns.election_lab import ALONE, GROUP, VIP, Daemon, Lab, until

pytestmark = [pytest.mark.root]

INTERVAL_S = GROUP.advert_interval_s
LEASE_S = 2.5 * INTERVAL_S
TICK_S = 0.010  # of the slowest kernel's clock (CONFIG_HZ=100), at which it sees the end of a lease
CLIENT = socket.inet_aton("192.0.2.100")
_ARP = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ETH_P_ALL, _PACKET_OUTGOING = 3, 4


@dataclass
class Question:
    asked: float
    answers: dict[str, float] = field(default_factory=dict)  # node -> when


class Asker:
    """Asks for the VIP every two milliseconds from the client's namespace; questions alternate between ARP, to
    everybody, and ICMP echo, to each node. Not by the client's own network stack, which knows one node only."""

    def __init__(self, lab: Lab) -> None:
        self.arp: list[Question] = []
        self.echo: list[Question] = []
        self._nodes = {bytes.fromhex(lab.mac(name).replace(":", "")): name for name in ("a", "b")}
        self._mac = bytes.fromhex(lab.mac("client").replace(":", ""))
        self._socket = lab.net.call("client", self._open)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=job) for job in (self._ask, self._hear)]

    @staticmethod
    def _open() -> socket.socket:
        result = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        result.bind(("front", _ETH_P_ALL))
        result.settimeout(0.1)
        return result

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._socket.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        vip = socket.inet_aton(VIP)
        while not self._stop.wait(0.002):
            self.arp.append(Question(time.monotonic()))
            header = (b"\xff" * 6, self._mac, 0x0806, 1, 0x0800, 6, 4, 1, self._mac, CLIENT, bytes(6), vip)
            self._socket.send(_ARP.pack(*header))
            self.echo.append(Question(time.monotonic()))
            for mac in self._nodes:
                self._socket.send(mac + self._mac + b"\x08\x00" + self._echo_request(len(self.echo) - 1))

    @staticmethod
    def _echo_request(number: int) -> bytes:
        body = struct.pack("!BBHI", 8, 0, 0, number)
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0, CLIENT, socket.inet_aton(VIP))
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body

    def _hear(self) -> None:
        while not self._stop.is_set():
            try:
                frame, address = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            now, node = time.monotonic(), self._nodes.get(frame[6:12])
            if node is None or address[2] == _PACKET_OUTGOING:
                continue
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[28:32] == socket.inet_aton(VIP):
                self.arp[-1].answers.setdefault(node, now)
            elif frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 0:
                self.echo[struct.unpack_from("!I", frame, 38)[0]].answers.setdefault(node, now)

    def served_by(self, node: str, since: float) -> bool:
        """Both kinds of question were answered by the node, more than once."""
        return all(
            sum(node in one.answers for one in list(kind) if one.asked > since) > 5 for kind in (self.arp, self.echo)
        )

    def last_answer(self, node: str, before: float = float("inf")) -> float:
        return max(
            at for kind in (self.arp, self.echo) for one in kind if (at := one.answers.get(node)) and one.asked < before
        )

    def first_answer(self, node: str, since: float = 0) -> float:
        return min(
            at for kind in (self.arp, self.echo) for one in kind if (at := one.answers.get(node)) and one.asked >= since
        )

    def answered_by_both(self) -> list[Question]:
        return [one for kind in (self.arp, self.echo) for one in kind if len(one.answers) > 1]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-ls{os.getpid()}") as net:
        yield Lab(net)


@pytest.fixture
def pair(lab: Lab) -> tuple[Daemon, Daemon]:
    return lab.pair()


def signal_everything(lab: Lab, name: str, *numbers: int) -> None:
    """Each signal to all processes of a node, before the next one: nobody lives to see another die."""
    pids = [int(pid) for pid in ip("netns", "pids", lab.net.ns(name)).split()]
    assert len(pids) >= 2, "a daemon and its election process"
    for number in numbers:
        for pid in pids:
            os.kill(pid, number)


def test_kill_9_of_everything_goes_dark_before_the_peer_serves(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        killed = time.monotonic()
        signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)
        stopped = time.monotonic()
        until(lambda: lab.holds("b"), "b takes over")
        until(lambda: asker.served_by("b", time.monotonic() - 0.2), "b answers")
        assert lab.holds("a"), "nobody was there to take the address off"
        asker.stop()
        assert asker.first_answer("b") > asker.last_answer("a") > killed
        assert asker.answered_by_both() == []
        # How long a answered: counted from the last advertisement, which was before `stopped`, to its last question.
        last_asked = max(one.asked for kind in (asker.arp, asker.echo) for one in kind if "a" in one.answers)
        assert last_asked < stopped + LEASE_S + TICK_S


def test_an_election_process_that_stops_for_long_goes_dark_and_gives_way(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, _b = pair
    driver = a.driver_pid()
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        os.kill(driver, signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: asker.served_by("b", 0) and time.monotonic() > stopped + 10 * INTERVAL_S, "b answers")
        assert lab.holds("a")
        os.kill(driver, signal.SIGCONT)
        until(lambda: not lab.holds("a"), "a gives way")
        until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
        asker.stop()
        assert asker.answered_by_both() == []
        assert asker.first_answer("b") > asker.last_answer("a") > stopped
    assert "did not run for" in a.roles[-1]["reason"] and lab.holds("b")


def test_the_whole_node_stops_and_goes_on(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    """As a virtual machine that is suspended, but for its kernel."""
    a, _b = pair
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        signal_everything(lab, "a", signal.SIGSTOP)
        until(lambda: asker.served_by("b", 0), "b answers")
        signal_everything(lab, "a", signal.SIGCONT)
        until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
        asker.stop()
        assert asker.answered_by_both() == []


def test_what_was_left_behind_is_dark_and_removed_at_the_return(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    with Asker(lab) as asker:
        signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)
        until(lambda: asker.served_by("b", 0), "b answers")
        since = time.monotonic()
        a = lab.daemon("a", GROUP)
        until(lambda: not lab.holds("a"), "the leftover is removed")
        until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
        asker.stop()
        assert [
            one for kind in (asker.arp, asker.echo) for one in kind if one.asked > since and "a" in one.answers
        ] == []


def test_a_dead_nodes_kernel_does_not_speak_in_the_name_of_the_vip(lab: Lab) -> None:
    """Where the VIP is its only address on a network, what its kernel asks there would redirect everybody to it."""
    inside = "198.51.100.1"
    both = replace(GROUP, addresses=(*GROUP.addresses, VipAddress(ip_address(inside), 24, "back")))
    for name, address in (("a", None), ("b", None), ("client", "198.51.100.100/24")):
        lab.net.plug(name, "back", address, "sw", f"to-{name}-back")
    lab.daemon("a", both)
    until(lambda: lab.holds("a", inside), "a is active")
    lab.daemon("b", both)
    lab.net.run("client", "ping", "-c1", "-W5", inside)
    signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)

    def known() -> str:
        return lab.net.run("client", "ip", "neigh", "show", inside, "dev", "back")

    until(lambda: lab.holds("b", inside) and lab.mac("b", "back") in known(), "the client knows b")
    assert lab.holds("a", inside)
    for _ in range(3):  # the client's kernel believes nobody within a second after the last one (locktime)
        lab.net.run("a", "ip", "neigh", "flush", "dev", "back")
        with pytest.raises(RuntimeError):
            lab.net.run("a", "ping", "-c1", "-W1", "198.51.100.100")
        assert lab.mac("b", "back") in known()


def test_a_clean_stop_ends_the_lease_before_it_releases(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, _b = pair
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        a.kill(signal.SIGTERM)
        until(lambda: asker.served_by("b", 0), "b answers")
        asker.stop()
        assert asker.answered_by_both() == []
        assert asker.first_answer("b") > asker.last_answer("a")


def test_a_sole_member_needs_no_lease(lab: Lab) -> None:
    a = lab.daemon("a", ALONE)
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)
        a.process.wait(10)
        since = time.monotonic() + LEASE_S + INTERVAL_S
        until(lambda: time.monotonic() > since and asker.served_by("a", since), "a answers long after")


def test_without_the_guard_the_same_faults_are_seen_by_the_asker(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    """The measuring device measures: with the program off the wire, a killed node goes on answering beside its peer."""
    for pin in (lab.run_dir("a") / "lease").glob("link-*"):
        Path(pin).unlink()
    with Asker(lab) as asker:
        until(lambda: asker.served_by("a", 0), "a answers")
        signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)
        until(lambda: len(asker.answered_by_both()) > 20, "both answer")
