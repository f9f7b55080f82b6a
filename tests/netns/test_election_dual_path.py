"""The second path and the gateway's answers between real processes: what VRRP by multicast alone gets wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lbnode.election.messages import Setup
from lbnode.lab.netns import Net
from lbnode.model import Track
from tests.netns.election_lab import GROUP, Daemon, Lab, until

pytestmark = [pytest.mark.root]
KEYS = {1: bytes(range(32))}
HEARTBEATS = {"a": ("192.0.2.1", 8849), "b": ("192.0.2.2", 8849)}
WITH_GATEWAY = replace(GROUP, track=(Track("gateway", "192.0.2.100"),))  # the client answers for one


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-dp{os.getpid()}") as net:
        yield Lab(net)


def setup_of(name: str, heartbeats: dict[str, tuple[str, int]] = HEARTBEATS) -> Setup:
    return Setup(KEYS, frozenset("ab"), heartbeats[name], {n: at for n, at in heartbeats.items() if n != name})


def pair(lab: Lab, group: object = GROUP, heartbeats: dict[str, tuple[str, int]] = HEARTBEATS) -> tuple[Daemon, Daemon]:
    """a Active, b Backup; each knows the other by name."""
    a = lab.daemon("a", group, setup=setup_of("a", heartbeats))  # type: ignore[arg-type]
    until(lambda: lab.holds("a"), "a becomes active while alone")
    b = lab.daemon("b", group, setup=setup_of("b", heartbeats))  # type: ignore[arg-type]
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows a")
    return a, b


def test_a_multicast_path_that_breaks_moves_nothing_and_a_handover_still_works(lab: Lab) -> None:
    a, b = pair(lab)
    sent = lab.multicast_heard("b")
    until(lambda: sent() > 0, "b hears multicast")
    with lab.never_both():
        lab.cut_multicast()
        until(lambda: lab.silent_for(sent, 1.0), "b has heard no multicast for ten intervals")
        assert lab.holds("a") and b.state == "backup"
        a.handover("front")
        until(lambda: lab.holds("b"), "b takes over what a released on the other path")
    until(lambda: b.reason == "released by a" and a.roles[-1]["active_address"] == "192.0.2.2", "both say so")


def test_power_loss_is_told_with_the_time_that_nobody_was_heard(lab: Lab) -> None:
    a, b = pair(lab)
    os.kill(a.process.pid, signal.SIGSTOP)  # nobody shall clean up
    os.kill(a.driver_pid(), signal.SIGKILL)
    until(lambda: lab.holds("b"), "b takes over")
    until(lambda: b.state == "active", "and says so")
    assert b.reason.startswith("no advertisement from a for 3") and "ms, its lease ended " in b.reason


def test_a_node_that_is_cut_off_from_peer_and_gateway_gives_up_and_does_not_take_over(lab: Lab) -> None:
    a, _b = pair(lab, WITH_GATEWAY)
    lab.isolate("a")
    until(lambda: lab.holds("b") and not lab.holds("a"), "the one that reaches the gateway serves")
    until(lambda: "cut off: neither a peer nor the gateway is reachable" in a.reason + a.problem, "the other says why")
    lab.heal("a")
    until(lambda: a.roles[-1]["active_address"] == "192.0.2.2" and a.problem == "", "it follows after the heal")
    assert lab.holds("b") and not lab.holds("a")
    lab.isolate("a")  # a Backup this time
    until(lambda: "cut off" in a.problem, "it stays what it is and says why")
    assert not lab.holds("a") and a.state == "backup"


def test_a_node_that_alone_has_lost_the_gateway_gives_up_although_its_peer_hears_it(lab: Lab) -> None:
    """Its port on the LAN is dead without the link being down; heartbeats have a network of their own."""
    for name, address in (("a", "198.51.100.1"), ("b", "198.51.100.2")):
        lab.net.plug(name, "sync", f"{address}/24", "sw", f"to-{name}-sync")
    a, b = pair(lab, WITH_GATEWAY, {"a": ("198.51.100.1", 8849), "b": ("198.51.100.2", 8849)})
    with lab.never_both():
        lab.isolate("a")
        until(lambda: lab.holds("b"), "the one that reaches the gateway serves")
    until(lambda: "the gateway answers b, but not this node" in a.reason + a.problem, "the other says why")
    until(lambda: b.reason == "released by a", "and the one that serves why it does")
    lab.heal("a")
    until(lambda: a.problem == "" and lab.client_reaches("b"), "nothing moves at the heal")
    assert a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2"


def test_a_backup_that_hears_nobody_does_not_take_over_without_the_gateway(lab: Lab) -> None:
    _a, b = pair(lab, WITH_GATEWAY)
    with lab.never_both():
        lab.deafen("b")
        until(lambda: "cut off" in b.problem, "b knows that it is deaf")
        assert lab.holds("a")


def test_a_backup_asks_the_store_about_the_owner_and_stays_backup_while_it_answers(lab: Lab) -> None:
    a, b = pair(lab)
    for daemon in (a, b):
        daemon.tell({"store": True})
    lab.isolate("b")  # both see a part of the clients
    until(lambda: len(b.asked("ask")) > 0, "b asks before it takes over")
    assert b.asked("ask")[0]["group"] == "front" and 0 < b.asked("ask")[0]["within"] < 0.1

    def owner_answers(alive: bool) -> None:
        seen = len(b.asked("ask"))
        b.tell({"answer": {"group": "front", "node": "a", "alive": alive}})
        until(lambda: len(b.asked("ask")) > seen or b.state == "active", "b goes on")

    until(lambda: lab.holds("b"), "no answer is not waited for")
    lab.heal("b")
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows again")
    lab.isolate("b")
    seen = len(b.asked("ask"))
    until(lambda: len(b.asked("ask")) > seen, "b asks again")
    owner_answers(True)
    if b.state == "backup":  # else the answer came after the timer, on a busy machine
        assert "a is active and answers through etcd" in b.problem


def test_an_owner_answers_the_question_unless_it_is_stopped_and_gives_up_when_another_is_named(lab: Lab) -> None:
    a, b = pair(lab)
    a.tell({"store": True})
    a.tell({"owner": {"group": "front", "node": "a", "epoch": 4}})
    a.tell({"question": {"group": "front", "question": "q1"}})
    until(lambda: a.asked("alive") == [{"group": "front", "question": "q1"}], "a answers")
    b.tell({"question": {"group": "front", "question": "q2"}})
    with lab.never_both():
        a.tell({"owner": {"group": "front", "node": "b", "epoch": 5}})
        until(lambda: lab.holds("b") and not lab.holds("a"), "a gives up for b")
    until(lambda: "etcd names b as the owner since then" in [role["reason"] for role in a.roles], "a says why")
    assert b.asked("alive") == []  # it was backup
    until(lambda: b.state == "active", "b is active")


def test_a_takeover_is_claimed_in_the_store(lab: Lab) -> None:
    a = lab.daemon("a", setup=setup_of("a"))
    a.tell({"store": True})
    a.configure(GROUP)
    until(lambda: a.asked("claim") == ["front"], "a claims the group once")
    assert lab.holds("a")
