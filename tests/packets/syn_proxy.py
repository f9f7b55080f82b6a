"""A client, the SYN proxy and a server on the bench: every way to begin a connection with a cookie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.counts import HalfOpen
from lbnode.dataplane.xdp.layout import State
from lbnode.model import ForwardingMethod, ServiceId
from tests.packets.bench import FULLNAT, MASQUERADE, Bench
from tests.packets.traffic import client_of, ip
from tests.packets.wire import SERVER6, VIP, VIP6

ISN, SERVER_ISN = 0xFFFFFFF0, 0x80000001  # both wrap or change their sign on the way
MSS = {4: (536, 1300, 1400, 1460), 6: (1220, 1300, 1380, 1440)}
SCALE = 10  # that the gateway offers
PROXIED = 32  # CONN_PROXIED
LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (77, 0)), ("NOP", None), ("WScale", 7)]


@dataclass(frozen=True, slots=True)
class Kind:
    family: int
    forward: ForwardingMethod = MASQUERADE

    def __str__(self) -> str:
        return f"{self.family}-{self.forward}"


IPV4 = Kind(4)
KINDS = [Kind(family, forward) for forward in (MASQUERADE, FULLNAT) for family in (4, 6)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


class Opening:
    """One client and its server, who know sequence numbers; `vip`, `server`: of one family."""

    def __init__(
        self, bench: Bench, kind: Kind = IPV4, *, threshold: int = 0, port: int = 40000, toa: bool = False
    ) -> None:
        self.bench, self.kind, self.port = bench, kind, port
        self.vip, self.server = (VIP6, SERVER6) if kind.family == 6 else (VIP, "198.51.100.11")
        shown = "[{}]:{}" if kind.family == 6 else "{}:{}"
        self.service = bench.service(f"tcp:{shown.format(self.vip, 80)}", syn_proxy=threshold)
        self.server_id = bench.server(self.service, shown.format(self.server, 8080), kind.forward, toa=toa)
        self.client = client_of(self.vip)
        self.cookie = 0

    @property
    def seen(self) -> tuple[str, int]:
        """Whom the server talks to."""
        if self.kind.forward is not FULLNAT:
            return self.client, self.port
        return next(
            (str(one.outward.target), one.outward.target_port)
            for one in self.bench.records()
            if one.inward.source_port == self.port
        )

    def from_client(self, flags: str, seq: int, ack: int = 0, *, data: bytes = b"", **fields: Any) -> Any:
        tcp = TCP(sport=self.port, dport=80, flags=flags, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, **fields)
        return self.bench.send(ip(self.client, self.vip) / tcp / Raw(data))

    def from_server(self, flags: str, seq: int, ack: int = 0, *, data: bytes = b"", **fields: Any) -> Any:
        peer, port = self.seen
        tcp = TCP(sport=8080, dport=port, flags=flags, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, **fields)
        return self.bench.send(ip(self.server, peer) / tcp / Raw(data), "back")

    def syn(self, options: list[Any] | None = None, **fields: Any) -> Packet:
        """The answer to a SYN."""
        out = self.from_client("S", ISN, window=64240, options=LINUX if options is None else options, **fields)
        assert out.verdict == "send"
        packet: Packet = out.ip
        self.cookie = packet[TCP].seq
        return packet

    def ack(self, **fields: Any) -> Any:
        return self.from_client("A", ISN + 1, self.cookie + 1, window=501, **fields)

    def open(self, options: list[Any] | None = None, server_options: list[Any] | None = None) -> None:
        self.syn(options)
        assert self.ack().verdict == "send"
        server_options = [("MSS", 1460), ("NOP", None), ("WScale", 9)] if server_options is None else server_options
        assert self.from_server("SA", SERVER_ISN, ISN + 1, window=65000, options=server_options).verdict == "send"
        assert self.ack().verdict == "send"
        assert self.bench.record().state is State.ESTABLISHED


def half_open(bench: Bench, service: ServiceId) -> int:
    index = bench.tables.services[service].entry.index
    return HalfOpen.unpack(bench.maps["half_open"].get_index(index)).entries
