"""Interfaces with a virtual router's MAC address: made, set up and down, removed. The kernel is played."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from lbnode.election import macvlans
from lbnode.election.macvlans import Macvlans
from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import Link, Place
from lbnode.election.virtual_mac import mac_of
from lbnode.election.worker import Worker
from lbnode.errors import DataPlaneError

FRONT = Link(2, "front", bytes.fromhex("020000000001"), running=True)
ONE, OTHER = (Place(FRONT, ip_address(f"192.0.2.{vrid}"), 24, mac_of(vrid, 4)) for vrid in (51, 52))


class Kernel:
    """Of Rtnetlink what is needed. It does slow things when `may` is set, and says by `asked` that it has one to do."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.may, self.asked = threading.Event(), threading.Event()
        self.refusal = ""
        self._next = 10

    @property
    def up(self) -> set[str]:
        return {link.name for link in self.links.values() if link.up}

    def _take_time(self) -> None:
        self.asked.set()
        assert self.may.wait(10)
        if self.refusal:
            raise DataPlaneError(self.refusal)

    def add_macvlan(self, below: int, name: str, mac: bytes) -> int:
        self._take_time()
        assert below == FRONT.index
        if there := [link.index for link in self.links.values() if link.name == name]:
            return there[0]
        self._next += 1
        self.links[self._next] = Link(self._next, name, mac, running=False, kind="macvlan", up=False)
        return self._next

    def give_no_address(self, index: int) -> None:
        assert index in self.links

    def set_up(self, index: int) -> None:
        if self.refusal:
            raise DataPlaneError(self.refusal)
        self.links[index] = replace(self.links[index], up=True)

    def set_down(self, index: int) -> None:
        self._take_time()
        self.links[index] = replace(self.links[index], up=False)

    def delete_link(self, index: int) -> None:
        self._take_time()
        self.links.pop(index, None)


class Node:
    """Macvlans and what the driver does with them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.worker = Worker()
        played = cast(Rtnetlink, kernel)
        self.macvlans = Macvlans(played, played, self.worker)
        self.macvlans.scan(kernel.links.values())

    def keep(self, *places: Place, held: tuple[Place, ...] = ()) -> None:
        self.macvlans.scan(self._kernel.links.values())
        self.macvlans.keep(places, held)

    def settle(self, *places: Place, held: tuple[Place, ...] = ()) -> None:
        """Until there is nothing to do."""
        self._kernel.may.set()
        for _ in range(3):
            self.worker.finish()
            self.keep(*places, held=held)
        self.worker.finish()
        self._kernel.may.clear()
        self._kernel.asked.clear()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    monkeypatch.setattr(macvlans, "PROC_SYS_NET", tmp_path)
    return Kernel()


@pytest.fixture
def node(kernel: Kernel) -> Iterator[Node]:
    node = Node(kernel)
    yield node
    kernel.may.set()
    node.worker.close()


def test_every_member_has_one_and_a_backup_s_is_down(kernel: Kernel, node: Node) -> None:
    node.keep(ONE, OTHER)
    assert kernel.asked.wait(10) and not kernel.links, "nobody waits for it"
    node.settle(ONE, OTHER)
    assert {link.name for link in kernel.links.values()} == {ONE.interface, OTHER.interface} and not kernel.up
    assert node.macvlans.set_up(ONE) and kernel.up == {ONE.interface} and node.macvlans.is_up(ONE)
    node.settle(ONE, OTHER, held=(ONE,))
    assert kernel.up == {ONE.interface}
    node.settle(ONE, OTHER)
    assert not kernel.up and len(kernel.links) == 2
    node.settle(OTHER)
    assert [link.name for link in kernel.links.values()] == [OTHER.interface]


def test_a_takeover_before_it_is_made_comes_to_it_when_it_is(kernel: Kernel, node: Node) -> None:
    node.keep(ONE)
    assert kernel.asked.wait(10)
    assert not node.macvlans.set_up(ONE) and node.macvlans.index_of(ONE) == 0 and not node.macvlans.problem_of(ONE)
    node.settle(ONE, held=(ONE,))
    assert node.macvlans.set_up(ONE) and kernel.up == {ONE.interface}


def test_what_waits_for_its_turn_is_called_off_by_a_takeover(kernel: Kernel, node: Node) -> None:
    node.settle(ONE, OTHER)
    assert all(node.macvlans.set_up(place) for place in (ONE, OTHER))
    node.keep(ONE, OTHER)
    assert kernel.asked.wait(10)
    (worked_on,) = [place for place in (ONE, OTHER) if not node.macvlans.set_up(place)]
    (waiting,) = {ONE, OTHER} - {worked_on}
    node.settle(ONE, OTHER, held=(ONE, OTHER))
    assert kernel.up == {waiting.interface}
    assert not node.macvlans.is_up(worked_on) and node.macvlans.set_up(worked_on)


def test_one_that_is_going_is_made_anew_when_it_has_gone(kernel: Kernel, node: Node) -> None:
    node.settle(ONE)
    before = node.macvlans.index_of(ONE)
    node.keep()
    assert kernel.asked.wait(10) and not node.macvlans.set_up(ONE)
    node.settle(ONE)
    assert node.macvlans.index_of(ONE) not in (0, before) and node.macvlans.set_up(ONE)


def test_what_a_process_that_was_killed_has_left_is_taken_up(kernel: Kernel, node: Node) -> None:
    node.settle(ONE, OTHER)
    node.macvlans.set_up(ONE)
    node.macvlans.set_up(OTHER)
    heir = Node(kernel)
    heir.settle(OTHER)
    assert [link.name for link in kernel.links.values()] == [OTHER.interface] and not kernel.up
    heir.worker.close()


def test_a_problem_is_told_until_it_has_gone(kernel: Kernel, node: Node) -> None:
    kernel.refusal = "Device or resource busy"
    node.settle(ONE)
    assert node.macvlans.problem_of(ONE) == f"interface {ONE.interface}: Device or resource busy"
    assert node.macvlans.failed
    kernel.refusal = ""
    node.settle(ONE)
    assert not node.macvlans.problem_of(ONE) and not node.macvlans.failed
    kernel.refusal = "Address already in use"
    assert not node.macvlans.set_up(ONE)
    assert node.macvlans.problem_of(ONE) == "no interface for 00:00:5e:00:01:33 above front: Address already in use"
    node.keep(OTHER)
    assert not node.macvlans.problem_of(ONE), "it is not wanted any more"
    kernel.refusal = ""
    node.settle()


def test_without_a_thread_the_next_call_tries_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    kernel.may.set()
    node = Node(kernel)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        node.keep(ONE)
        assert not node.worker.collect() and not kernel.links
        node.worker.finish()
        assert len(kernel.links) == 1, "who has to wait does it himself"
        kernel.may.clear()
        kernel.asked.clear()
        node.keep()
    assert not kernel.asked.is_set() and not node.worker.collect()
    assert kernel.asked.wait(10), "in a thread"
    kernel.may.set()
    node.worker.close()
    assert not kernel.links


def test_what_goes_wrong_in_the_thread_is_raised_where_results_are_collected() -> None:
    worker, results = Worker(), list[int]()
    worker.submit(lambda: 1, results.append)
    worker.submit(lambda: 1 // 0, results.append)
    with pytest.raises(ZeroDivisionError):
        worker.finish()
    worker.close()
    assert results == [1]
