"""A machine in a chosen state, and what it does: for the tests of the state machine."""

from __future__ import annotations

from ipaddress import IPv4Address

from lbnode.election.events import Changed, Event, Send
from lbnode.election.machine import Machine
from lbnode.election.packet import Advert, encode, parse_ipv4
from lbnode.election.router import SECOND, VirtualRouter
from lbnode.model import VrrpState
from tests.unit.test_election_packet import ip_packet

OURS, THEIRS, VIP = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3"), IPv4Address("192.0.2.10")
ROUTER = VirtualRouter(51, 150, 10, (VIP,), OURS, preempt=False, peers=(250, 50))
I = ROUTER.interval  # noqa: E741 - the RFC's symbol
T0 = 1_000 * SECOND


def events(machine: Machine) -> list[Event]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def kinds(machine: Machine) -> list[str]:
    """Names of the events; of adverts the priority."""
    return [
        f"advert {parse_ipv4(ip_packet(event.datagram, OURS), 51, THEIRS).priority}"
        if isinstance(event, Send)
        else type(event).__name__
        for event in events(machine)
    ]


def backup(router: VirtualRouter = ROUTER) -> Machine:
    machine = Machine(router)
    machine.start(T0)
    events(machine)
    return machine


def active(router: VirtualRouter = ROUTER) -> tuple[Machine, int]:
    """An Active machine and the time it became so."""
    machine = backup(router)
    now = machine.get_timer()
    assert now is not None
    machine.handle_timer(now)
    events(machine)
    assert machine.state is VrrpState.ACTIVE
    return machine, now


def hear(machine: Machine, now: int, priority: int, *, source: IPv4Address = THEIRS, interval_cs: int = 10) -> None:
    machine.receive_datagram(ip_packet(encode(Advert(51, priority, interval_cs, (VIP,), source)), source), now)


def said(machine: Machine) -> str:
    """The reason of the last change."""
    return [event.reason for event in events(machine) if isinstance(event, Changed)][-1]


def advert(priority: int, source: IPv4Address = THEIRS) -> Advert:
    return Advert(51, priority, 10, (VIP,), source)
