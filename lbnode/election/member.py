"""One VIP group on this node, as the driver keeps it: configuration, machine, place, and what to tell about it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from lbnode.election.authentication import OFF, Authentication, Mode
from lbnode.election.endpoint import Endpoint, Style
from lbnode.election.fence import Evidence, Policy, refuses_takeover, refuses_to_hold
from lbnode.election.figures import Lateness
from lbnode.election.gateway import Gateways
from lbnode.election.heartbeat import Conversation
from lbnode.election.machine import Machine
from lbnode.election.messages import Setup
from lbnode.election.owner import Ownership
from lbnode.election.packet import ChecksumForm
from lbnode.election.placement import NOWHERE, Link
from lbnode.election.router import CENTISECOND, SECOND, VirtualRouter
from lbnode.model import Address, Role, Track, VipGroup, VrrpState

STRANGER_FOR = 10 * SECOND  # that an unknown speaker is told about after its last word


class Member:
    """One VIP group on this node."""

    def __init__(self, group: VipGroup, node: str, setup: Setup) -> None:
        self.name = group.name
        self.reconfigure(group, node, setup)
        self.machine: Machine | None = None
        self.endpoint = Endpoint()
        self.placement = NOWHERE
        self.since = time.time()
        self.reason = "starting"
        self.send_problem = ""
        self.was_sent = False  # the last advertisement, by one way at least
        self.other_problems: tuple[str, ...] = ()
        self.reported: Role | None = None
        self.conversations: dict[str, Conversation] = {}  # on the second path, by node
        self.beat_at = 0  # when a heartbeat is due, ns
        self.gateways = Gateways()
        self.asked_for = 0  # the timer for which gateways and the store were asked, see Machine.ask_at
        self.ownership = Ownership()
        self.lateness = Lateness()
        self.stranger: tuple[str, int] = ("", 0)  # who speaks with our VRID and without our keys, and when
        self.failing: Mapping[str, str] = {}  # what the daemon looks at: track -> reason
        self.troubles: list[tuple[Track, str]] = []  # all that fails now, see `weigh`
        self.claimed_after = 0  # the epoch of an outdated owner, in whose place we have claimed the group
        self.rival: tuple[bytes, int] | None = (
            None  # who last answered for our addresses while we were Active, and when
        )
        self._contacts: frozenset[object] = frozenset()  # members, gateways and a rival that are heard
        self.question = ""  # of another node through the store, that waits for an answer
        self.questioned_at = 0
        self._heard_from: dict[str, tuple[int, int]] = {}  # by node: see epoch_of

    def reconfigure(self, group: VipGroup, node: str, setup: Setup) -> None:
        self.group = group
        self.authentication, self.authentication_problem = authentication_for(group, setup)
        self.priority = group.priorities[node]
        self.peers = tuple(priority for name, priority in group.priorities.items() if name != node)
        self.addresses = frozenset(vip.address for vip in group.addresses)

    @property
    def active(self) -> bool:
        return self.machine is not None and self.machine.state is VrrpState.ACTIVE

    def held(self) -> dict[str, Any]:
        """Of an Active, for the process that takes over on this node."""
        assert self.machine is not None
        return {
            "vrid": self.group.vrid,
            "since": self.since,
            "reason": self.reason,
            "sent_at": self.machine.sent_at,
            "dark_after": self.machine.router.dark_after,
        }

    @property
    def started(self) -> bool:
        return self.machine is not None and self.machine.state is not VrrpState.INITIALIZE

    @property
    def interval(self) -> int:
        """Advertisement_Interval in ns."""
        return self._interval_cs * CENTISECOND

    def conversation_with(self, source: Address) -> tuple[str, Conversation] | None:
        """With the node that has this VRRP address."""
        for name, conversation in self.conversations.items():
            if conversation.heard is not None and conversation.heard.source == source:
                return name, conversation
        return None

    def epoch_of(self, source: Address, now: int) -> int:
        """The epoch of the ownership of the node whose advertisement has come; 0 = not known. To be asked for each.

        Its advertisement may come before its heartbeat: from a virtual machine that was stopped and still believes that
        it is Active. What the node said last counts until it may have said more: else it would win the role back by
        priority, with a connection table that lacks all that its successor has done since.
        """
        known = self.conversation_with(source)
        if known is None or (beat := known[1].heard) is None:
            return 0
        name, talk = known
        since, before = self._heard_from.get(name, (now, now))  # without heartbeats; the last advertisement
        if talk.hears(now, self.patience) or now - before > self.patience:
            since = now
        self._heard_from[name] = since, now
        return beat.epoch if now - since <= self.patience else 0

    @property
    def patience(self) -> int:
        """ns of silence after which a member or the gateway counts as not reachable."""
        return 3 * self.interval

    def connected_beside(self, peer: str, now: int) -> bool:
        """We hear the gateway, or other members than this one."""
        others = (talk for name, talk in self.conversations.items() if name != peer)
        return self.reaches_gateway(now) or any(talk.hears(now, self.patience) for talk in others)

    def reaches_gateway(self, now: int) -> bool:
        return self.gateways.answers(now, self.gateways.patience) is True

    def regains_contact(self, now: int) -> bool:
        """A member, the gateway or a rival is heard again, since the last call. If we were cut off, who was on its side
        may have heard the announcements of another Active last, even if that one has yielded since then."""
        before = self._contacts
        members = (name for name, talk in self.conversations.items() if talk.hears(now, self.patience))
        gateways = (a for a in self.gateways.addresses if self.gateways.answer_of(a, now, self.gateways.patience))
        rival = ("another Active",) if self._has_rival(now) else ()
        self._contacts = frozenset((*members, *gateways, *rival))
        return not self._contacts <= before

    @property
    def looks_for_rivals(self) -> bool:
        """Whether to ask, before each advertisement, who else has our addresses: not every member sends heartbeats, and
        keepalived yields to an advertisement without a word. With a virtual MAC clients are right wherever it is."""
        return len(self.conversations) < len(self.peers) and not self.group.virtual_mac

    def _has_rival(self, now: int) -> bool:
        return self.active and self.rival is not None and now - self.rival[1] <= self.patience

    @property
    def needs_prober(self) -> bool:
        return bool(self.gateways.addresses) or self.looks_for_rivals

    def evidence(self, now: int) -> Evidence:
        """What is known beside VRRP.

        A Backup that is about to take over has asked the gateway just before, and wants its answer: one from before it
        was cut off shall not count. An Active may have become so a moment ago, in place of another process (see
        succession), and gives the others the time to say a word.
        """
        talks, about_to_take_over = self.conversations, not self.active
        within = 2 * self.interval if about_to_take_over else self.patience
        answers = self.gateways.answers(now, within if about_to_take_over else self.gateways.patience)
        heard = any(talk.is_heard(now, within) for talk in talks.values())
        everybody = len(talks) == len(self.peers)  # without heartbeats of all, silence proves nothing
        if self.active and not self.gateways.asked_long_enough(now):
            answers = answers or None
        if self.active and any(now - talk.began_at <= 2 * self.patience for talk in talks.values()):
            everybody = False
        active_peer = next((n for n, t in talks.items() if t.hears(now, self.interval * 5 // 2) and t.heard_active), "")
        peer = True if heard else False if talks and everybody else None
        lost = self.gateways.is_lost(now)
        reaching = (n for n, t in talks.items() if lost and t.hears(now, self.patience) and t.heard and t.heard.gateway)
        own = self.ownership
        epoch = self.machine.epoch if self.machine is not None else 0
        if about_to_take_over:
            store, owner = own.answered(self.asked_for), own.answer_of
        else:
            store, owner = own.store, own.node if 0 < epoch < own.epoch and self._owns(now) else ""
        alive = about_to_take_over and store is True and own.alive
        named = talks.get(own.node)
        unheard = own.node if named is not None and not named.hears(now, self.patience) else ""
        if about_to_take_over and unheard and now - own.named_at <= self.patience and not self._follows(unheard):
            owner, alive = unheard, True  # its claim is an answer: whoever released the group gave way to it
        asking = unheard if about_to_take_over and own.waits(now, self.interval * 3 // 4) else ""
        return Evidence(peer, answers, store, active_peer, owner, alive, asking, next(reaching, ""))

    def _follows(self, node: str) -> bool:
        """It was Active for us, and is silent: its claim is older than that, however late we were told of it."""
        active = self.machine.active_address if self.machine is not None else None
        return active is not None and self.name_of(active) == node

    def refuses_takeover(self, now: int) -> str:
        """Why a Backup stays Backup; "" = it may take over. So may a sole member, and who preempts one it hears."""
        if not self.peers or (self.machine is not None and self.machine.hears_active(now)):
            return ""
        return refuses_takeover(Policy(self.group.policy), self.evidence(now))

    def refuses_to_hold(self, now: int) -> str:
        """Why an Active should give the group up, as far as is known; "" = it goes on."""
        return refuses_to_hold(Policy(self.group.policy), self.evidence(now)) if self.peers else ""

    def gives_up(self, now: int) -> str:
        """Why an Active gives the group up now; "" = it goes on. To be called when it is about to advertise.

        What it knows of the gateway may be some intervals old, and from before a heal. So it asks again before it acts
        on that, and waits for the answer until the next advertisement.
        """
        if not self.peers:
            return ""
        evidence, policy = self.evidence(now), Policy(self.group.policy)
        reason = refuses_to_hold(policy, evidence)
        for_the_gateway = reason and not refuses_to_hold(policy, replace(evidence, gateway=None))
        if for_the_gateway and not self.gateways.asked_in_vain(now, self.interval):
            self.gateways.ask_at = 0
            return ""
        return reason

    def _owns(self, now: int) -> bool:
        """The owner that the store names has had the time to say that it is not Active, and has not said so."""
        talk, since = self.conversations.get(self.ownership.node), now - self.ownership.named_at
        in_time = talk is None or not talk.hears(now, self.patience) or since > self.interval * 5 // 4
        return in_time and not self.outdated_owner(now)

    def outdated_owner(self, now: int) -> bool:
        """The store names a node that says since then that it is not Active: it had yielded when its claim came."""
        talk = self.conversations.get(self.ownership.node)
        within = min(self.patience, now - self.ownership.named_at)
        return talk is not None and talk.hears(now, within) and not talk.heard_active

    def vouches(self, now: int) -> bool:
        """Whether we may answer, to a node that does not hear us, that we serve.

        What was heard before the question proves nothing: we may have been cut off since and not know it yet. So the
        gateway is asked anew. Members that we hear may be cut off from the clients together with us.
        """
        if not self.active or self.refuses_to_hold(now):
            return False
        return self.gateways.answers(now, now - self.questioned_at) is not False

    def name_of(self, source: Address) -> str:
        known = self.conversation_with(source)
        return known[0] if known else str(source)

    def speaks_on(self, index: int, version: int) -> bool:
        link = self.placement.link
        return link is not None and link.index == index and any(s.version == version for s in self.placement.sources)

    def router(self) -> VirtualRouter:
        """For the machine; the placement has sources."""
        group, (source, *second) = self.group, self.placement.sources
        return VirtualRouter(
            group.vrid,
            self.effective_priority,
            self._interval_cs,
            self.placement.advertised,
            source,
            group.preempt,
            self.peers,
            second[0] if second else None,
            round(group.preempt_delay_s * SECOND),
            round(group.startup_delay_s * SECOND),
        )

    def weigh(self, links: Iterable[Link], now: int) -> bool:
        """Look at what the group tracks. True if the outcome has changed."""
        running = {link.name for link in links if link.running}
        before, self.troubles = self.troubles, []
        for track in self.group.track:
            reason = self.failing.get(str(track), "")
            if track.kind == "interface" and track.what not in running:
                reason = f"interface {track.what} is down or has no carrier"
            if track.kind == "gateway" and self.gateways.has_lost(ip_address(track.what), now):
                reason = f"gateway {track.what} does not answer"
            if reason:
                self.troubles.append((track, reason))
        return [track for track, _ in before] != [track for track, _ in self.troubles]

    @property
    def effective_priority(self) -> int:
        """The configured one less the weights of what fails."""
        return max(1, self.priority - sum(track.weight or 0 for track, _ in self.troubles))

    @property
    def fault(self) -> str:
        """Why the node may not take part; "" = it may. A sole member takes part whatever fails: nobody else would."""
        reasons = [why for track, why in self.troubles if track.weight is None and track.kind != "gateway"]
        return "; ".join(reasons) if self.peers else ""

    def configure_endpoint(self, now: int) -> None:
        group = self.group
        gateways = [ip_address(track.what) for track in group.track if track.kind == "gateway"]
        self.gateways.configure(gateways, self.interval, now)
        form = None if group.checksum == "auto" else ChecksumForm(group.checksum)
        style = Style(group.version, form, group.unicast_peers, self.authentication)
        self.endpoint.configure(group.vrid, self._interval_cs, self.placement.speakers, style)

    @property
    def _interval_cs(self) -> int:
        return max(1, round(self.group.advert_interval_s * 100))

    def alarms(self, now: int) -> list[str]:
        """What others do wrong, or cannot hear."""
        who, at = self.stranger
        found = [
            f"{n} does not hear us, though we hear it"
            for n, t in self.conversations.items()
            if t.is_deaf(now, self.patience)
        ]
        if self.rival is not None and self._has_rival(now):
            found.append(f"{self.rival[0].hex(':') or 'another host'} answers for our addresses, too")
        if who and now - at < STRANGER_FOR:
            found.append(
                f"{who} uses VRID {self.group.vrid}, too: another router, or a member whose keys differ from ours"
            )
        return found

    def role(self, address_problems: Iterable[str], now: int) -> Role:
        machine = self.machine
        problems = [
            *address_problems,
            *self.placement.problems,
            *(reason for _, reason in self.troubles),
            *self.other_problems,
            self.send_problem,
            self.authentication_problem,
        ]
        problems += [machine.refused, machine.alarm] if machine else []
        problems += [self.endpoint.alarm, *self.alarms(now)]
        active_address = machine.active_address if machine else None
        known = self.conversation_with(active_address) if active_address else None
        return Role(
            self.name,
            machine.state if machine else VrrpState.INITIALIZE,
            self.effective_priority,
            self.since,
            self.reason,
            active_address,
            "; ".join(problem for problem in problems if problem),
            machine.epoch if machine and self.active else 0,
            known[0] if known else "",
            self._backups(now) if self.active else (),
        )

    def _backups(self, now: int) -> tuple[str, ...]:
        """Members that were heard lately and take part: who does not sends no heartbeats. The best first."""
        within = max(self.patience, SECOND)  # it is told to people, and not at each lost heartbeat
        heard = [
            (talk.heard.priority, name)
            for name, talk in self.conversations.items()
            if talk.heard and talk.hears(now, within) and not talk.heard_active
        ]
        return tuple(name for _, name in sorted(heard, reverse=True))


def authentication_for(group: VipGroup, setup: Setup) -> tuple[Authentication, str]:
    """What the group demands, and why it cannot be had.

    "auto" is on where every member has our keys, and then asks for no common clock: see Authentication.fresh.
    """
    send_key = next(iter(setup.keys), 0)
    if group.authentication == "auto":
        if not setup.keys or len(group.priorities) < 2 or not setup.nodes.issuperset(group.priorities):
            return OFF, ""
        return Authentication(Mode.ENFORCE, setup.keys, send_key), ""
    mode = Mode(group.authentication)
    if mode is not Mode.OFF and not setup.keys:
        return OFF, f"authentication is {mode}, but node.toml has no keys: set [election] keys_file, or [sync] key_file"
    return Authentication(mode, setup.keys, send_key, fresh=True), ""


def why_unauthenticated(group: VipGroup, setup: Setup) -> str:
    """Why "auto" is off in a group with several members; "" = it is on, or the operator has decided."""
    if group.authentication != "auto" or len(group.priorities) < 2:
        return ""
    if not setup.keys:
        return "this node has no key; give all members one: [sync] key_file, or [election] keys_file"
    strangers = ", ".join(sorted(group.priorities.keys() - setup.nodes))
    return f"{strangers} is not among the [sync] peers of this node" if strangers else ""
