"""When an Active announces its addresses by gratuitous ARP and unsolicited NA, which nobody acknowledges. Pure."""

from __future__ import annotations

from lbnode.election.events import Announce
from lbnode.election.router import SECOND

COUNT = 5  # per address and round
# The first round comes at once; switches and hosts that were not ready get another chance at these ages.
AFTER = (SECOND // 10, SECOND // 2, SECOND, 5 * SECOND)
# From then on. keepalived yields without a word: clients may have heard it last, and nobody knows that two were Active.
REFRESH = 10 * SECOND


class Announcements:
    """A series of rounds. `at`: when `again` is due, ns."""

    def __init__(self) -> None:
        self.at = 0
        self._began_at = 0
        self._round = 0

    def begin(self, now: int) -> Announce:
        """The first round of a new series."""
        self._began_at, self._round, self.at = now, 0, now + AFTER[0]
        return Announce(COUNT)

    def again(self, now: int) -> Announce:
        """The round that is due."""
        self._round += 1
        if self._round < len(AFTER):
            self.at = self._began_at + AFTER[self._round]
        else:
            self.at = now + REFRESH
        return Announce(COUNT if self._round <= len(AFTER) else 1)
