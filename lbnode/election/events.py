"""What can happen to the state machine, and what it wants done, in this order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lbnode.election.packet import Advert, encode
from lbnode.model import VrrpState

FOREVER = (1 << 63) - 1  # a lease that does not end: of a sole member, since nobody else will serve


class Input(Enum):
    """A row of machine.TRANSITIONS. The middle four classify a received advertisement against our own."""

    START = auto()
    RESUME = auto()  # another process on this node held the role until now
    TIMER = auto()
    RELEASE = auto()  # priority 0
    SUPERIOR = auto()  # higher priority, or the same and a higher address
    EQUAL = auto()  # the same priority and a lower address
    INFERIOR = auto()
    DARK = auto()  # we were not running for dark_after
    HANDOVER = auto()  # the operator asks us to give the role away
    FENCED = auto()  # we may not hold the group any longer, see fence.refuses_to_hold
    STOP = auto()


@dataclass(frozen=True, slots=True)
class Send:
    """Send this advertisement, in each family of the group and to each peer (see endpoint.Endpoint.datagrams)."""

    __match_args__ = ("datagram",)

    advert: Advert

    @property
    def datagram(self) -> bytes:
        """As one VRRP message to the multicast group of the first family."""
        return encode(self.advert)


@dataclass(frozen=True, slots=True)
class Claim:
    """Put the group's addresses on their interfaces, where they are not there already."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the group's addresses off their interfaces, where they are there."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The data plane may serve the group's addresses until `until` (ns on the machine's clock; 0 = not any more).

    Follows the Send it is due to, 2.5 intervals after it, while a peer waits 3 at least: whatever stops this process,
    the node stops serving before another starts. A sole member's lease is FOREVER.
    """

    until: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Send `count` gratuitous ARPs for each address."""

    count: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The state changed, and why."""

    state: VrrpState
    reason: str


Event = Send | Lease | Claim | Withdraw | Announce | Changed
