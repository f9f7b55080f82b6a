"""Everything the election hears: VRRP, heartbeats, answers of gateways and rivals; each goes to whom it concerns."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lbnode.election.actions import Actions, now_ns
from lbnode.election.drops import Drops
from lbnode.election.member import Member
from lbnode.election.packet import RELEASE_PRIORITY, Datagram, Reason, Rejected, vrid_of
from lbnode.model import Address

_STRANGE = (Reason.UNSIGNED, Reason.TRAILER, Reason.KEY, Reason.SIGNATURE, Reason.OWN_ADDRESS, Reason.SENDER)
HEARTBEATS = "heartbeats"  # where an interface's name stands for other drops


class Ears:
    """`taken`: addresses of our groups that are another router's own, since it advertises from them."""

    def __init__(self, node: str, members: Mapping[str, Member], actions: Actions) -> None:
        self.taken: set[Address] = set()
        self.drops = Drops()
        self._node = node
        self._members = members
        self._actions = actions

    def hear(self) -> bool:
        """Read everything that waits. True if `taken` has grown."""
        before = len(self.taken)
        self._hear_vrrp()
        self._hear_beats()
        self._hear_neighbours()
        return len(self.taken) > before

    def _hear_vrrp(self) -> None:
        for (index, version), vrrp in self._actions.sockets.items():
            for datagram in vrrp.receive():
                vrid = None if isinstance(datagram, Rejected) else vrid_of(datagram.payload)
                member = self._member_for(index, version, vrid)
                if member is None:
                    continue  # another virtual router on this network, none of our business
                try:
                    if isinstance(datagram, Rejected):
                        raise datagram
                    self._hear_one(member, datagram)
                    self._refuse_address(datagram.source)
                except Rejected as error:
                    self.drops.count(vrrp.link.name, error)
                    if isinstance(datagram, Datagram) and error.reason in _STRANGE and vrid == member.group.vrid:
                        member.stranger = str(datagram.source), now_ns()

    def _hear_one(self, member: Member, datagram: Datagram) -> None:
        assert member.machine is not None
        now = now_ns()
        advert = member.endpoint.receive(datagram, now, time.time_ns())
        if advert is None:
            return
        known = member.conversation_with(advert.source)
        if known and advert.priority == RELEASE_PRIORITY:
            known[1].released()
        beat = known[1].heard if known and known[1].hears(now, member.patience) else None
        epoch = member.epoch_of(advert.source, now)
        deaf = beat is not None and beat.connected and known is not None and known[1].is_deaf(now, member.patience)
        degraded = known is not None and 0 < advert.priority < member.group.priorities[known[0]]
        member.machine.receive(advert, now, epoch=epoch, deaf=deaf, degraded=degraded)
        self._actions.perform(member)

    def _hear_beats(self) -> None:
        """Heartbeats, and the advertisements that they carry."""
        for beat in self._actions.dual.receive():
            try:
                if isinstance(beat, Rejected):
                    raise beat
                member = self._members.get(beat.group)
                if member is None or not member.started or beat.node not in member.conversations:
                    continue
                member.conversations[beat.node].receive(beat, now_ns(), member.patience)
                if beat.copy is not None:
                    self._hear_one(member, beat.copy)
                    if not beat.active and member.machine is not None:
                        member.machine.yielded(beat.source, now_ns())
                if beat.successor and member.machine is not None:
                    member.machine.designate(beat.successor == self._node, now_ns())
            except Rejected as error:
                if error.reason is not Reason.STALE:  # how every conversation begins
                    self.drops.count(HEARTBEATS, error)

    def _hear_neighbours(self) -> None:
        for prober in self._actions.probers.values():
            for address, mac in prober.answers():
                now = now_ns()
                for member in self._members.values():
                    member.gateways.heard(address, mac, now)
                    if member.active and member.looks_for_rivals and address in member.addresses:
                        member.rival = mac, now

    def _member_for(self, index: int, version: int, vrid: int | None) -> Member | None:
        here = [member for member in self._members.values() if member.started and member.speaks_on(index, version)]
        for member in here:
            if member.group.vrid == vrid:
                return member
        return here[0] if here and vrid is None else None  # too short to say for whom: any may count it

    def _refuse_address(self, source: Address) -> None:
        """Until the next configuration: a router that rests for a while keeps its address."""
        if any(source in member.addresses for member in self._members.values()):
            self.taken.add(source)
