"""The election process of one node: what the production driver does around the production Member and Machine.

Sockets are replaced by the simulated network, authentication (unless `signed`) by the order it keeps: of an
advertisement that comes by two ways, or again, the first copy counts. When `signed`, advertisements and heartbeats are
bytes, with the trailer and the tag of the production code. Everything is decided by the production code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any

from lbnode.election.authentication import Authentication, Mode
from lbnode.election.endpoint import Style
from lbnode.election.events import Announce, Changed, Claim, Lease, Send, Withdraw
from lbnode.election.heartbeat import Beat, Conversation
from lbnode.election.heartbeat import decode as decode_beat
from lbnode.election.heartbeat import encode as encode_beat
from lbnode.election.machine import Machine
from lbnode.election.member import Member
from lbnode.election.messages import Setup
from lbnode.election.packet import GROUP_IPV4, RELEASE_PRIORITY, TTL, Advert, Datagram, Rejected
from lbnode.election.router import SECOND, VirtualRouter
from lbnode.model import Track, VipAddress, VipGroup, VrrpState
from tests.sim.election.network import Path
from tests.sim.election.node import Node, Process
from tests.sim.election.store import Owner

if TYPE_CHECKING:
    from tests.sim.election.cluster import Cluster

VIP = ip_address("192.0.2.10")
GATEWAY_ADDRESS, GATEWAY_MAC = ip_address("192.0.2.254"), bytes(6)
FIRST_ADDRESS = IPv4Address("192.0.2.1")
KEYS = {1: bytes(32)}
MAX_UTC_ERROR = 3600 * SECOND
SOCKET_QUEUE = 256  # datagrams that wait for a process


@dataclass(frozen=True)
class Settings:
    """What all nodes of a cluster have in common."""

    priorities: Sequence[int] = (250, 200, 150)
    interval_cs: int = 10
    preempt: bool = False
    dual: bool = False  # heartbeats on the second path
    gateway: bool = False  # the LAN's gateway is asked
    store: bool = False  # a shared store that names the owner
    policy: str = "availability"
    signed: bool = False  # advertisements are bytes with a trailer, made and checked by the production code
    authentication: Mode = Mode.ENFORCE  # if signed

    def group(self) -> VipGroup:
        priorities = {name_of(number): priority for number, priority in enumerate(self.priorities)}
        track = (Track("gateway", str(GATEWAY_ADDRESS)),) if self.gateway else ()
        address = (VipAddress(VIP, 24),)
        interval_s = self.interval_cs / 100
        more = {"policy": self.policy, "preempt": self.preempt, "track": track, "advert_interval_s": interval_s}
        return VipGroup("front", 51, address, priorities, **more)

    def router(self, number: int) -> VirtualRouter:
        peers = tuple(p for n, p in enumerate(self.priorities) if n != number)
        own = self.priorities[number]
        return VirtualRouter(51, own, self.interval_cs, (VIP,), address_of(number), self.preempt, peers)


def name_of(number: int) -> str:
    return f"n{number}"


def address_of(number: int) -> IPv4Address:
    return FIRST_ADDRESS + number


class ElectionProcess:
    drains = True  # what was heard comes before the timer; a mutant does it the other way round

    def __init__(self, cluster: Cluster, node: Node, settings: Settings) -> None:
        self.cluster, self.node = cluster, node
        self._use(settings)
        self._sequence = 0  # of advertisements: grows over restarts, as the trailer's time does
        self._daemon = cluster.store.connect(self) if settings.store else None
        self._hears_after = cluster.network.delay()  # ns from the wire to the process
        # Of its UTC, which need not be right and has nothing to do with the others'.
        self._utc_at_0 = cluster.random.randrange(MAX_UTC_ERROR) + 1_800_000_000 * SECOND if settings.signed else 0
        self._begin()

    def _begin(self) -> None:
        """A new process knows nothing but the newest configuration."""
        self._use(self.cluster.settings)
        settings, number = self._settings, self.node.number
        self.member = Member(settings.group(), name_of(number), Setup())
        self.machine = self.member.machine = Machine(self.router)
        self.machine.name_of = self.member.name_of
        self._configure_endpoint()
        others = [n for n in range(len(settings.priorities)) if n != number] if settings.dual else []
        incarnation = self.cluster.random.getrandbits(64) | 1
        self.member.conversations = {name_of(other): Conversation(incarnation, self._now) for other in others}
        self.inbox: list[tuple[Any, ...]] = []  # (method, sender, ...)
        self._newest: dict[int, int] = {}  # sequence of the last advertisement, by sender
        self._wake_at: int | None = None
        self._question: Callable[[], None] = lambda: None

    def _configure_endpoint(self) -> None:
        settings = self._settings
        style = Style(authentication=Authentication(settings.authentication, KEYS, 1)) if settings.signed else Style()
        self.member.endpoint.configure(51, settings.interval_cs, {self.router.source: (VIP,)}, style)
        if settings.gateway:
            self.member.gateways.configure([GATEWAY_ADDRESS], self.router.interval, self._now)

    def _use(self, settings: Settings) -> None:
        self._settings, self.router = settings, settings.router(self.node.number)

    @property
    def active(self) -> bool:
        return self.machine.state is VrrpState.ACTIVE

    @property
    def _now(self) -> int:
        return self.node.clock(self.cluster.now)

    # --- from outside -----------------------------------------------------------------------------------------

    def start(self, held: Mapping[str, Any] | None = None) -> None:
        """`held`: of the Active process in whose place this one comes, see succession."""
        self._begin()
        now = self._now
        if self._daemon is not None:
            self._daemon.ready()
        if held is not None:
            self.machine.resume(now, held["reason"], held["sent_at"], held["dark_after"])
        else:
            self.machine.start(now)
        self._perform()

    def upgrade(self) -> None:
        """Another process takes over on this node. Its sockets were open already, so that it has the same queue."""
        held, inbox = self.member.held() if self.active else None, self.inbox
        self.start(held)
        self.inbox = inbox

    def stop(self) -> None:
        self.machine.stop(self._now, "lbnoded has died")
        self._perform()

    def hand_over(self) -> None:
        self.machine.handover(self._now)
        self._perform()

    def end(self) -> None:
        self.inbox, self._wake_at = [], None

    def deliver(self, *message: Any) -> None:
        """A datagram reaches the node: (unbound method that takes it, sender, content...)."""
        node = self.node
        if node.awake:
            self._take(message)
            if self.member.question:
                self._serve_timers()
            self._arm()
        elif node.process is Process.PAUSED and node.powered and not node.stunned and len(self.inbox) < SOCKET_QUEUE:
            self.inbox.append(message)

    def tell(self, what: str, *arguments: Any) -> None:
        """A message of lbnoded about the store."""
        if self.node.process is not Process.DEAD:
            self.deliver(TOLD[what], *arguments)

    def follow(self, settings: Settings) -> None:
        """lbnoded has read a configuration that was written before."""
        if self.node.stunned:
            self.cluster.at(self.router.interval, self.follow, settings)
        elif settings is self.cluster.settings:  # else a newer one is on its way
            self.deliver(ElectionProcess.hear_settings, settings)

    def hear_question(self, question: Callable[[], None]) -> None:
        """Of another node through the store; to be called if we serve."""
        member = self.member
        if self.active:
            member.question, member.questioned_at, member.gateways.ask_at = "asked", self._now, 0
            self._question = question

    def serve(self) -> None:
        """One round of the driver's loop."""
        if not self.node.awake:
            return
        if self.drains:
            self._drain()
        self._serve_timers()
        self._drain()
        self._arm()

    # --- what it hears ------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        inbox, self.inbox = self.inbox, []
        for message in sorted(inbox, key=lambda each: ORDER.index(each[0])):
            self._take(message)

    def _take(self, message: tuple[Any, ...]) -> None:
        hear, *arguments = message
        hear(self, *arguments)

    def hear_advert(self, sender: int, sequence: int, advert: Advert, payload: bytes) -> None:
        member, machine, now = self.member, self.machine, self._now
        if self._settings.signed:
            datagram = Datagram(address_of(sender), GROUP_IPV4, TTL, payload)
            try:
                told = member.endpoint.receive(datagram, now, now + self._utc_at_0)
            except Rejected:
                return
            if told is None:
                return
            advert = told
        elif self._settings.dual:  # and so there are keys
            if sequence <= self._newest.get(sender, 0):
                return
            self._newest[sender] = sequence
        known = member.conversation_with(advert.source)
        if known and advert.priority == RELEASE_PRIORITY:
            known[1].released()
        beat = known[1].heard if known and known[1].hears(now, member.patience) else None
        epoch = member.epoch_of(advert.source, now)
        deaf = beat is not None and beat.connected and known is not None and known[1].is_deaf(now, member.patience)
        was_active, dark = self.active, now >= self.node.lease_until
        machine.receive(advert, now, epoch=epoch, deaf=deaf)
        if was_active and not self.active and not dark and not deaf and not epoch:
            self.cluster.judge.yielded(self.router, self.cluster.processes[sender].router)
        self._perform()

    def hear_beat(self, sender: int, told: Beat | bytes, sequence: int, advert: Advert | None) -> None:
        try:
            beat = decode_beat(told, KEYS) if isinstance(told, bytes) else told
            self.member.conversations[beat.node].receive(beat, self._now, self.member.patience)
        except Rejected:
            return
        if advert is not None:
            self.hear_advert(sender, sequence, advert, beat.message)
            if not beat.active:
                self.machine.yielded(beat.source, self._now)

    def hear_settings(self, settings: Settings) -> None:
        """The configuration has changed."""
        self._use(settings)
        self.member.reconfigure(settings.group(), name_of(self.node.number), Setup())
        self._configure_endpoint()
        if self.machine.state is not VrrpState.INITIALIZE and self.machine.router != self.router:
            self.machine.reconfigure(self.router, self._now)
            self._perform()

    def hear_gateway(self, _: int) -> None:
        self.member.gateways.heard(GATEWAY_ADDRESS, GATEWAY_MAC, self._now)

    def hear_store(self, answers: bool) -> None:
        self.member.ownership.store = answers

    def hear_owner(self, owner: Owner) -> None:
        self.member.ownership.name(name_of(owner.number), owner.epoch, self._now)
        if self.active and owner.number == self.node.number:
            self.machine.epoch = owner.epoch

    def hear_answer(self, owner: Owner | None, alive: bool) -> None:
        self.member.ownership.answer(name_of(owner.number) if owner else "", alive, self._now)

    # --- what it does -------------------------------------------------------------------------------------------

    def _serve_timers(self) -> None:
        member, machine, now = self.member, self.machine, self._now
        if machine.state is VrrpState.INITIALIZE:
            return
        if (ahead := machine.ask_at) is not None and ahead <= now and member.asked_for != ahead:
            member.asked_for, member.gateways.ask_at = ahead, 0
            if self._daemon is not None and member.ownership.wants_to_ask(ahead, now, refused=bool(machine.refused)):
                self._daemon.ask(member.interval * 3 // 4)
        if member.regains_contact(now):
            machine.announce(now)
            self._perform()
        own = member.ownership
        if self.active and 0 < machine.epoch < own.epoch != member.claimed_after and member.outdated_owner(now):
            member.claimed_after = own.epoch
            if self._daemon is not None:
                self._daemon.claim()
        timer = machine.get_timer()
        if timer is not None and timer <= now:
            if self.active and (reason := member.gives_up(now)):
                machine.fence(now, reason)
            else:
                machine.handle_timer(now, "" if self.active else member.refuses_takeover(now))
            self._perform()
        if member.question and member.vouches(now):
            member.question = ""
            self._question()
        if member.conversations and member.beat_at <= now:
            self._beat(None)
        if member.gateways.questions(now):
            self.cluster.ask_gateway(self.node)

    def _perform(self) -> None:
        node, cluster = self.node, self.cluster
        while (event := self.machine.next_event()) is not None:
            match event:
                case Send(advert=advert):
                    self._send(advert)
                case Lease(until):
                    cluster.extend_lease(node, until)
                case Claim():
                    node.holds = True
                    cluster.judge.look()
                case Withdraw():
                    node.holds = False
                    cluster.judge.look()
                case Announce(count):
                    cluster.announce(node, count)
                case Changed(state, reason):
                    cluster.changed(node, state, reason)
                    if state is VrrpState.ACTIVE and self._daemon is not None:
                        self._daemon.claim()

    def _send(self, advert: Advert) -> None:
        self._sequence += 1
        cluster, own, payload, copy = self.cluster, self.node.number, b"copy", b"copy"
        if self._settings.signed:
            (outgoing,) = self.member.endpoint.datagrams(advert, self._now + self._utc_at_0)
            payload, copy = outgoing.payload, self.member.endpoint.copy
        for other in cluster.processes:
            if other is not self:
                message = (ElectionProcess.hear_advert, own, self._sequence, advert, payload)
                cluster.send(Path.LAN, own, other, other._hears_after, message)
        if self.member.conversations:
            self._beat(advert if copy else None, copy)

    def _beat(self, advert: Advert | None, copy: bytes = b"") -> None:
        """A heartbeat to each peer, with a copy of the advertisement if there is one."""
        member, now, own = self.member, self._now, self.node.number
        member.beat_at = now + member.interval
        epoch = self.machine.epoch if self.active else 0
        for other in self.cluster.processes:
            if other is not self:
                peer = name_of(other.node.number)
                incarnation, sequence, echo = member.conversations[peer].next(now)
                reach = (member.connected_beside(peer, now), member.reaches_gateway(now))
                told = (self.active, *reach, member.priority, epoch)
                source = self.router.source
                beat = Beat("front", name_of(own), source, *told, incarnation, sequence, echo, copy)
                wire = encode_beat(beat, 1, KEYS[1]) if self._settings.signed else beat
                message = (ElectionProcess.hear_beat, own, wire, self._sequence, advert)
                self.cluster.send(Path.SYNC, own, other, other._hears_after, message)

    # --- timers ---------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Schedule the next timer. A later one than is scheduled already is looked at then."""
        member, cluster = self.member, self.cluster
        timer = self.machine.get_timer()
        if timer is None or not self.node.awake:
            return
        if member.conversations:
            timer = min(timer, member.beat_at)
        if self._settings.gateway:
            timer = min(timer, member.gateways.ask_at)
        ahead = self.machine.ask_at if self._settings.gateway or self._daemon is not None else None
        if ahead is not None and ahead != member.asked_for:
            timer = min(timer, ahead)
        due = max(cluster.now, self.node.true_time(timer)) + cluster.network.delay()
        if self._wake_at is None or due < self._wake_at:
            self._wake_at = due
            cluster.at(due - cluster.now, self._wake, due)

    def _wake(self, at: int) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self.serve()


TOLD = {
    "question": ElectionProcess.hear_question,
    "store": ElectionProcess.hear_store,
    "owner": ElectionProcess.hear_owner,
    "answer": ElectionProcess.hear_answer,
}
ORDER = (
    ElectionProcess.hear_settings,
    *TOLD.values(),
    ElectionProcess.hear_advert,
    ElectionProcess.hear_beat,
    ElectionProcess.hear_gateway,
)
