"""What the contract suite of the data planes programs, and how it does."""

from __future__ import annotations

from dataclasses import replace

from lbnode.dataplane.base import DataPlane, Op, PutServer, PutService
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId

WEB, DNS = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("udp", "192.0.2.10", 53)
IDS = [ServerId.parse(f"198.51.100.{n}:80") for n in (21, 22, 23)]
WEB_SERVICE = ProgrammedService(WEB, "wrr")
DNS_SERVICE = ProgrammedService(DNS, "rr")


def server(number: int, weight: int = 1, forward: ForwardingMethod = ForwardingMethod.MASQUERADE) -> ProgrammedServer:
    return ProgrammedServer(IDS[number], weight, forward)


async def apply(plane: DataPlane, *ops: Op) -> None:
    for op in ops:
        await plane.apply(op)


def web(*servers: ProgrammedServer, service: ProgrammedService = WEB_SERVICE) -> ProgrammedService:
    return replace(service, servers={item.id: item for item in servers})


async def services(plane: DataPlane) -> dict[ServiceId, ProgrammedService]:
    return dict((await plane.dump()).services)


BASIC: tuple[Op, ...] = (PutService(WEB_SERVICE), PutServer(WEB, server(0)), PutServer(WEB, server(1, 2)))
