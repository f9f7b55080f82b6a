"""The second path of the election: heartbeats by UDP over the synchronisation network, see `heartbeat`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from lbnode.election.heartbeat import Beat, Conversation, decode, encode
from lbnode.election.member import Member
from lbnode.election.messages import Setup
from lbnode.election.packet import Reason, Rejected

_BATCH = 512  # datagrams per drain
_FREEBIND = 15  # IP_FREEBIND of linux/in.h
_IPV6_FREEBIND = 78
_TRAFFIC_CLASS_INTERNETWORK_CONTROL = 0xC0


class DualPath:
    """`problem`: why there is none although it is configured; "" = there is, or none is wanted."""

    def __init__(self, setup: Setup, node: str) -> None:
        self.problem = ""
        self.incarnation = secrets.randbits(64) or 1
        self._setup, self._node = setup, node
        self._socket: socket.socket | None = None
        self._peers = {name: peer for name, peer in setup.peers.items() if _is_address(peer[0])}
        if not setup.listen or not setup.keys:
            return
        if names := ", ".join(sorted(setup.peers.keys() - self._peers.keys())):
            self.problem = f"no heartbeats to {names}: give an IP address in [sync] peers; a name may not be waited for"
        try:
            self._socket = _open(setup.listen)
        except OSError as error:
            host, port = setup.listen
            self.problem = f"no heartbeats: cannot listen on {host} port {port}: {error.strerror}"

    @property
    def sockets(self) -> list[socket.socket]:
        """To be waited for."""
        return [self._socket] if self._socket is not None else []

    def converse(self, member: Member, now: int) -> None:
        """Have a conversation with each other member of the group that has the keys and an address for heartbeats."""
        names = self._peers.keys() & member.group.priorities.keys() if self._socket is not None else set()
        known = member.conversations
        member.conversations = {name: known.get(name) or Conversation(self.incarnation, now) for name in sorted(names)}

    def send(self, member: Member, message: bytes, now: int, successor: str = "") -> bool:
        """A heartbeat to each peer; `message`: the advertisement sent just now. True if one at least could be sent."""
        if self._socket is None or member.machine is None:
            return False
        sent = False
        key_id, key = next(iter(self._setup.keys.items()))
        machine, source = member.machine, member.placement.sources[0]
        for name, conversation in member.conversations.items():
            incarnation, sequence, echo = conversation.next(now)
            epoch = machine.epoch if member.active else 0
            reach = (member.connected_beside(name, now), member.reaches_gateway(now))
            identity = (member.name, self._node, source, member.active, *reach, member.priority, epoch)
            data = encode(Beat(*identity, incarnation, sequence, echo, message, successor), key_id, key)
            try:
                self._socket.sendto(data, self._peers[name])
                sent = True
            except OSError:  # the network is away: what the peers hear decides
                continue
        return sent

    def receive(self) -> Iterator[Beat | Rejected]:
        """All heartbeats that wait, up to a batch; Rejected for a bad one."""
        for _ in range(_BATCH if self._socket is not None else 0):
            assert self._socket is not None
            try:
                data = self._socket.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # a peer's port was closed (ICMP): this has cleared it
                continue
            try:
                beat = decode(data, self._setup.keys)
                if beat.node not in self._peers:
                    raise Rejected(Reason.SENDER, f"heartbeat of {beat.node}, which is no peer of [sync]")
                yield beat
            except Rejected as error:
                yield error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _open(listen: tuple[str, int]) -> socket.socket:
    """Also while the address is not on its interface yet."""
    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
        # The process before this one may be about to end; of two sockets the later one gets the datagrams.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _TRAFFIC_CLASS_INTERNETWORK_CONTROL)
        else:
            made.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _TRAFFIC_CLASS_INTERNETWORK_CONTROL)
        made.bind(listen)
    except OSError:
        made.close()
        raise
    return made
