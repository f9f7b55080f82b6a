"""What a virtual router is on this node: the parameters of RFC 9568 section 6.1. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbnode.election.events import Input
from lbnode.election.packet import MAX_INTERVAL_CS, RELEASE_PRIORITY, Advert
from lbnode.model import Address

CENTISECOND = 10_000_000  # ns
SECOND = 100 * CENTISECOND
MILLISECOND = CENTISECOND // 10


@dataclass(frozen=True, slots=True)
class VirtualRouter:
    """Parameters of one virtual router on this node. `peers`: priorities of the other members; () = sole member."""

    vrid: int
    priority: int  # 1..254; 255 (address owner) does not exist here: VIPs float
    interval_cs: int  # centiseconds, 1..4095
    addresses: tuple[Address, ...]  # those that the advertisements list, of both families
    source: Address  # our primary address on the VRRP interface; IPv6: the link-local one
    preempt: bool = False
    peers: tuple[int, ...] = ()
    second_source: Address | None = None  # that of the other family, when the group has both
    preempt_delay: int = 0  # ns as Backup before we preempt
    startup_delay: int = 0  # ns after `start` before we take over

    def __post_init__(self) -> None:
        if not (1 <= self.vrid <= 255 and 1 <= self.priority <= 254 and 1 <= self.interval_cs <= MAX_INTERVAL_CS):
            raise ValueError(f"VRID {self.vrid}, priority {self.priority} or interval {self.interval_cs} out of range")

    @property
    def interval(self) -> int:
        """Advertisement_Interval in ns."""
        return self.interval_cs * CENTISECOND

    @property
    def dark_after(self) -> int:
        """ns without an advertisement of ours after which a peer (3 intervals and skew) may soon take over."""
        return self.interval * 5 // 2

    def mismatch(self, advert: Advert) -> str:
        """How the addresses of another one's advertisement differ from ours; "" = not at all (RFC 9568 section 7.1)."""
        same_family = {address for address in self.addresses if address.version == advert.source.version}
        if set(advert.addresses) == same_family:
            return ""
        theirs, ours = (", ".join(map(str, sorted(a, key=int))) for a in (advert.addresses, same_family))
        return f"{advert.source} announces {theirs} with VRID {advert.vrid}, we have {ours}: make them equal"

    def classify(self, advert: Advert) -> Input:
        """What an advertisement of this virtual router means to its Active here (RFC 9568 section 6.4.3)."""
        if advert.priority == RELEASE_PRIORITY:
            return Input.RELEASE
        if advert.priority != self.priority:
            return Input.SUPERIOR if advert.priority > self.priority else Input.INFERIOR
        ours = self.source if advert.source.version == self.source.version else self.second_source
        return Input.SUPERIOR if ours is None or int(advert.source) > int(ours) else Input.EQUAL

    def is_best_without(self, active_priority: int) -> bool:
        """No member but the Active, which is gone, has a higher claim than we, so that nobody is to be waited for."""
        rest = list(self.peers)
        if active_priority in rest:
            rest.remove(active_priority)
        return all(priority < self.priority for priority in rest)
