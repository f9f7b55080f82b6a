"""One virtual router on the wire: what an advertisement looks like on its way out, and which ones may come in. Pure.

A group with IPv4 and IPv6 addresses is two virtual routers of the same VRID (RFC 9568 section 1.2: each family is an
instance of its own) and every advertisement goes out in both, so that any VRRP router understands its half. The
decisions are those of one machine, see `machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lbnode.election.authentication import OFF, Authentication, Signer, Verifier, window_s
from lbnode.election.packet import (
    Advert,
    ChecksumForm,
    Datagram,
    Reason,
    Rejected,
    encode,
    group_of,
    message,
    parse,
    refuse_own,
)
from lbnode.model import Address


@dataclass(frozen=True, slots=True)
class Style:
    """How a group speaks VRRP on this node."""

    version: int = 3  # 2: for the time of a migration; adverts of both versions are understood
    checksum: ChecksumForm | None = None  # of version 3 over IPv4; None: as the peer does
    unicast: tuple[Address, ...] = ()  # peers to speak to, and the only ones to hear; (): multicast
    authentication: Authentication = OFF


@dataclass(frozen=True, slots=True)
class Outgoing:
    source: Address
    destination: Address
    payload: bytes


class Endpoint:
    """`configure` comes before all else. `alarm`: what was received lately and is accepted, yet wrong; "" = nothing.

    `copy`: the last advertisement in the first family for the second path, see `heartbeat`; empty while unsigned, since
    the receiver could not tell copies from news.
    """

    def __init__(self) -> None:
        self.alarm = ""
        self.copy = b""
        self._vrid = 0
        self._interval_cs = 0
        self._addresses: Mapping[Address, tuple[Address, ...]] = {}
        self._style = Style()
        self._form = ChecksumForm.PSEUDO_HEADER  # of the peer heard last
        self._signer, self._verifier = Signer(), Verifier()

    def configure(
        self, vrid: int, interval_cs: int, addresses: Mapping[Address, tuple[Address, ...]], style: Style
    ) -> None:
        """`addresses`: for each family our own source address and what we advertise from it."""
        self._vrid, self._interval_cs, self._addresses, self._style = vrid, interval_cs, addresses, style

    def datagrams(self, advert: Advert, utc: int) -> list[Outgoing]:
        """The machine's advertisement in each family and to each peer. `utc` in ns, for the trailer."""
        found: list[Outgoing] = []
        self.copy = b""
        for source, addresses in self._addresses.items():
            form = self._style.checksum or self._form
            one = replace(advert, source=source, addresses=addresses, form=form, version=self._style.version)
            trailer = self._signer.trailer(self._style.authentication, one, message(one), utc)
            if trailer and not self.copy:
                self.copy = encode(one, None, trailer)
            peers = [peer for peer in self._style.unicast if peer.version == source.version and peer != source]
            to_all = peers if self._style.unicast else [group_of(source)]
            found += [Outgoing(source, to, encode(one, to, trailer)) for to in to_all]
        return found

    def receive(self, datagram: Datagram, now: int, utc: int) -> Advert | None:
        """The advertisement; None for a copy of one that came already. `now` in ns of a monotonic clock.

        Raises Rejected for what is not meant for us or not valid; then nothing has changed.
        """
        advert, _ = parse(datagram, self._vrid)
        source, style = advert.source, self._style
        for own in self._addresses:
            refuse_own(advert, own)
        if advert.version == 2 and advert.interval_cs != self._interval_cs:  # RFC 3768 section 7.1
            theirs, ours = advert.interval_cs / 100, self._interval_cs / 100
            raise Rejected(Reason.INTERVAL, f"{source}: version 2 with an interval of {theirs:g} s, ours is {ours:g} s")
        if style.unicast and source not in style.unicast:
            raise Rejected(Reason.SENDER, f"{source} is not among the unicast peers of VRID {self._vrid}")
        if not self._verifier.check(style.authentication, advert, datagram.payload, now, utc):
            return None
        self.alarm = self._alarm(advert)
        if source.version == 4 and advert.version == 3:
            self._form = advert.form
        return advert

    def _alarm(self, advert: Advert) -> str:
        source, style = advert.source, self._style
        if advert.version != style.version and source.version == 4:
            return f"{source} speaks VRRP version {advert.version}, we speak {style.version}: make them equal"
        if style.checksum not in (None, advert.form) and source.version == 4 and advert.version == 3:
            return f"{source} sends checksums of the form {advert.form}, we send {style.checksum}: it may ignore ours"
        if abs(self._verifier.skew_s) > window_s(advert.interval_cs) // 2:
            return f"the clock of {source} differs from ours by {self._verifier.skew_s} s: synchronise both (NTP)"
        return ""
