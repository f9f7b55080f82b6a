"""Reads what ip_vs contains, by netlink dumps.

The kernel runs one dump per socket (EBUSY): each has a socket of its own, and may stop half way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from errno import ESRCH
from functools import partial
from typing import TypeVar

from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command, Daemon, Destination, Service
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.dataplane.ipvs.translate import explain_request
from lbnode.model import ServiceId
from lbnode.turns import Turns

T = TypeVar("T")

_DECODED = 20  # objects between two looks at the clock, about 1 ms


class Reader:
    """connections: how many there were when services were last read."""

    def __init__(self, another_socket: Callable[[], GenericNetlink], turns: Turns) -> None:
        self.connections = 0
        self._another_socket = another_socket
        self._turns = turns

    async def table(self, convert: Callable[[Service, list[Destination]], T]) -> dict[ServiceId, T]:
        """All services with their destinations, as `convert` makes them.

        One after the other: the kernel's objects are never all there, for the garbage collector to walk through.
        """
        table: dict[ServiceId, T] = {}
        connections = 0
        with closing(self._another_socket()) as sock:
            for service in await self._dump(sock, Command.GET_SERVICE, codec.decode_service):
                decode = partial(codec.decode_destination, service_family=service.id.family)
                items = await self._dump(sock, Command.GET_DEST, decode, codec.encode_key(service.id))
                table[service.id] = convert(service, items)
                connections += sum(item.active + item.inactive for item in items)
        self.connections = connections
        return table

    async def daemons(self) -> list[Daemon]:
        with closing(self._another_socket()) as sock:
            return await self._dump(sock, Command.GET_DAEMON, codec.decode_daemon)

    async def _dump(
        self, sock: GenericNetlink, command: Command, decode: Callable[[bytes], T], body: bytes = b""
    ) -> list[T]:
        found: list[T] = []
        try:
            for bodies in sock.dump(command, body):
                for at in range(0, len(bodies), _DECODED):
                    found += map(decode, bodies[at : at + _DECODED])
                    await self._turns.take()
        except OSError as error:
            if error.errno == ESRCH:  # the service was deleted meanwhile
                return []
            raise explain_request("reading ip_vs", error.errno or 0) from None
        return found
