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
    seen = len(b.asked("ask"))
    lab.isolate("b")
    until(lambda: len(b.asked("ask")) > seen, "b asks again")
    owner_answers(True)
    if b.state == "backup":  # else the answer came after the timer, on a busy machine
        assert "a is active and answers through etcd" in b.problem


def test_an_owner_answers_the_question_and_a_backup_does_not(lab: Lab) -> None:
    a, b = pair(lab)
    a.tell({"store": True})
    a.tell({"owner": {"group": "front", "node": "a", "epoch": 4}})
    a.tell({"question": {"group": "front", "question": "q1"}})
    until(lambda: a.asked("alive") == [{"group": "front", "question": "q1"}], "a answers")
    b.tell({"question": {"group": "front", "question": "q2"}})
    b.configure(replace(GROUP, priorities={"a": 250, "b": 151}))
    until(lambda: b.roles[-1]["priority"] == 151, "b has read the question and what came after it")
    a.handover("front")
    until(lambda: b.state == "active", "b takes over")
    b.tell({"question": {"group": "front", "question": "q3"}})
    until(lambda: b.asked("alive") == [{"group": "front", "question": "q3"}], "and answers from then on")


def test_an_active_gives_up_when_another_is_named_unless_that_one_says_that_it_is_backup(lab: Lab) -> None:
    a, b = pair(lab)
    a.tell({"store": True})
    a.tell({"owner": {"group": "front", "node": "a", "epoch": 4}})
    a.tell({"owner": {"group": "front", "node": "b", "epoch": 5}})  # a claim that came when b had yielded
    until(lambda: a.asked("claim") == ["front"], "a claims the group again")
    assert lab.holds("a") and b.state == "backup"
    os.kill(b.driver_pid(), signal.SIGSTOP)
    given_up = "etcd names b as the owner since then"
    until(lambda: given_up in [role["reason"] for role in a.roles], "a gives up when b says nothing any more")


def test_a_takeover_is_claimed_in_the_store(lab: Lab) -> None:
    a = lab.daemon("a", setup=setup_of("a"))
    a.tell({"store": True})
    a.configure(GROUP)
    until(lambda: a.asked("claim") == ["front"], "a claims the group once")
    assert lab.holds("a")


FILE = Track("file", "/run/serve", weight=120)


def test_an_active_that_loses_weight_gives_way_to_a_better_one_and_stays_backup(lab: Lab) -> None:
    a, b = pair(lab, replace(GROUP, track=(FILE,)))
    with lab.never_both():
        a.tell({"failing": {"front": {str(FILE): "/run/serve does not exist"}}})
        until(lambda: lab.holds("b") and not lab.holds("a"), "b takes over from the degraded a")
    until(lambda: a.roles[-1]["priority"] == 130 and "/run/serve does not exist" in a.problem, "a says why")
    until(lambda: b.reason == "preempted priority 130 of a", "b says why")
    a.tell({"failing": {}})
    until(lambda: a.roles[-1]["priority"] == 250 and a.problem == "", "a is well again")
    assert lab.holds("b") and a.state == "backup"  # and does not preempt


def test_what_is_tracked_without_weight_ends_the_part_of_a_node(lab: Lab) -> None:
    a, b = pair(lab)
    a.configure(replace(GROUP, track=(Track("interface", "uplink"),)))
    with lab.never_both():
        until(lambda: lab.holds("b"), "b takes over, a has no such interface")
    until(lambda: a.state == "initialize" and a.reason == "interface uplink is down or has no carrier", "a says why")
    lab.net.veth("a", "uplink", None, "sw", "to-uplink", None)
    until(lambda: a.state == "backup", "a takes part again")
    assert lab.holds("b") and b.state == "active"


def test_a_node_in_maintenance_hands_over_and_does_not_take_over(lab: Lab) -> None:
    a, b = pair(lab)
    with lab.never_both():
        a.configure(GROUP, maintenance=True)
        until(lambda: lab.holds("b") and not lab.holds("a"), "it hands over")
        until(lambda: (a.state, a.reason) == ("initialize", "maintenance"), "and says why")
        b.kill(signal.SIGTERM)
    assert not lab.holds("a")
    a.configure(GROUP)
    until(lambda: lab.holds("a"), "it serves again after the maintenance")


def test_a_handover_to_a_named_node_goes_to_that_one_although_another_is_better(lab: Lab) -> None:
    nodes = {"a": ("192.0.2.1", 8849), "b": ("192.0.2.2", 8849), "client": ("192.0.2.100", 8849)}
    group = replace(GROUP, priorities={"a": 250, "b": 150, "client": 200})

    def start(name: str) -> Daemon:
        peers = {peer: at for peer, at in nodes.items() if peer != name}
        return lab.daemon(name, group, setup=Setup(KEYS, frozenset(nodes), nodes[name], peers))

    a = start("a")
    until(lambda: lab.holds("a"), "a becomes active")
    b, c = start("b"), start("client")
    for daemon in (b, c):
        until(lambda d=daemon: d.roles and d.roles[-1]["active_address"] == "192.0.2.1", "both follow")
    heard = {name: lab.heartbeats(name) for name in nodes}
    until(lambda: all(lab.heartbeats(name) > heard[name] + 10 for name in nodes), "all have got to know each other")
    a.handover("front", "b")
    until(lambda: lab.holds("b"), "the named one takes over")
    until(lambda: a.roles[-1]["active_address"] == c.roles[-1]["active_address"] == "192.0.2.2", "the others follow")
    assert not lab.holds("client") and not any("became active" in event for event in c.events)
