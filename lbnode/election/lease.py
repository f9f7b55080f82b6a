"""The leases of the VIP groups in the data plane's memory: until when each group's addresses are served.

The kernel compares them with its clock at each packet, so they end also when nobody is left who could end them.
"""

from __future__ import annotations

import mmap

LEASE_SIZE = 8  # a u64: ns of CLOCK_BOOTTIME


class LeaseMap:
    """The data plane's array of leases, mapped into this process: to set one is a store into memory, without a system
    call that might have to wait. Raises OSError if the descriptor is none of such an array."""

    def __init__(self, descriptor: int) -> None:
        self._view = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")

    def set(self, index: int, until: int) -> None:
        """Serve under lease `index` until `until`. One store of eight bytes: no reader sees half of it."""
        self._view[index] = until
