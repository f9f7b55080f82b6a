"""Interfaces with a virtual router's MAC address: when they are made and removed. The kernel is played."""

from __future__ import annotations

import threading
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from lbnode.election import macvlans
from lbnode.election.macvlans import Macvlans
from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import Link, Place
from lbnode.election.virtual_mac import mac_of

FRONT = Link(2, "front", bytes.fromhex("020000000001"), running=True)
ONE, OTHER = (Place(FRONT, ip_address(f"192.0.2.{vrid}"), 24, mac_of(vrid, 4)) for vrid in (51, 52))


class Kernel:
    """Of Rtnetlink what is needed. It removes an interface when `may_remove` is set, and says so by `asked`."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.may_remove, self.asked = threading.Event(), threading.Event()
        self._next = 10

    def add_macvlan(self, below: int, name: str, mac: bytes) -> int:
        assert below == FRONT.index
        if there := [link.index for link in self.links.values() if link.name == name]:
            return there[0]
        self._next += 1
        self.links[self._next] = Link(self._next, name, mac, running=False, kind="macvlan")
        return self._next

    def give_no_address(self, index: int) -> None:
        assert index in self.links

    def set_up(self, index: int) -> None:
        assert index in self.links

    def delete_link(self, index: int) -> None:
        self.asked.set()
        assert self.may_remove.wait(10)
        self.links.pop(index, None)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    monkeypatch.setattr(macvlans, "PROC_SYS_NET", tmp_path)
    return Kernel()


def made(kernel: Kernel, *places: Place) -> Macvlans:
    played = cast(Rtnetlink, kernel)
    result = Macvlans(played, played)
    result.scan(kernel.links.values())
    assert [result.make_ready(place) for place in places] == [""] * len(places)
    return result


def test_a_removal_holds_nobody_up(kernel: Kernel) -> None:
    ours = made(kernel, ONE)
    ours.keep_only([])
    ours.remove()
    assert kernel.asked.wait(10) and kernel.links and ours.removing
    ours.remove()
    assert ours.make_ready(OTHER) == "" and ours.index_of(OTHER) in kernel.links
    kernel.may_remove.set()
    ours.finish()
    assert [link.name for link in kernel.links.values()] == [OTHER.interface] and not ours.removing


def test_one_that_is_wanted_again_before_its_turn_stays(kernel: Kernel) -> None:
    ours = made(kernel, ONE, OTHER)
    ours.keep_only([])
    ours.remove()
    assert kernel.asked.wait(10)
    ours.scan(kernel.links.values())
    wanted = {place.interface: ours.make_ready(place) for place in (ONE, OTHER)}
    kernel.may_remove.set()
    ours.finish()
    (left,) = kernel.links.values()
    assert wanted.pop(left.name) == ""
    assert wanted.popitem()[1].endswith("is still being removed")


def test_one_that_is_going_is_made_anew_when_it_has_gone(kernel: Kernel) -> None:
    ours = made(kernel, ONE)
    before = ours.index_of(ONE)
    ours.keep_only([])
    ours.remove()
    assert kernel.asked.wait(10)
    for _ in range(2):
        assert ours.make_ready(ONE) == f"interface {ONE.interface} is still being removed" and ours.index_of(ONE) == 0
        ours.scan(kernel.links.values())
    kernel.may_remove.set()
    ours.finish()
    ours.scan(kernel.links.values())
    assert ours.make_ready(ONE) == "" and ours.index_of(ONE) not in (0, before)
    ours.keep_only([ONE])
    ours.finish()
    assert ours.index_of(ONE) in kernel.links


def test_what_a_process_that_was_killed_has_left_is_removed(kernel: Kernel) -> None:
    made(kernel, ONE, OTHER)
    kernel.may_remove.set()
    heir = made(kernel)
    heir.keep_only([OTHER])
    heir.remove()
    heir.finish()
    assert [link.name for link in kernel.links.values()] == [OTHER.interface]


def test_without_a_thread_the_next_call_tries_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ours = made(kernel, ONE)
    ours.keep_only([])
    kernel.may_remove.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        ours.remove()
    assert kernel.links
    ours.remove()
    ours.finish()
    assert not kernel.links
