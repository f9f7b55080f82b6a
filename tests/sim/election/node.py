"""A gateway as hardware and kernel: power, clock, addresses, lease, socket queue. Its process is in `process`."""

from __future__ import annotations

from enum import Enum, auto

MILLION = 1_000_000


class Process(Enum):
    RUNS = auto()
    PAUSED = auto()  # SIGSTOP, garbage collection, starvation: the kernel goes on, the process does not
    DEAD = auto()


class Node:
    """`number` names it; `clock_ppm`: how much faster than true time its clock runs."""

    def __init__(self, number: int, clock_ppm: int) -> None:
        self.number = number
        self.process = Process.DEAD
        self.powered = True
        self.stunned = False  # the hypervisor runs neither its kernel nor its clock
        self.holds = False  # the addresses are on its interfaces
        self.lease_until = 0  # on its own clock
        self._rate = MILLION + clock_ppm  # own microseconds per true second
        self._clock = (0, 1_000_000_000)  # (true, own) ns at the last start of the clock

    def clock(self, now: int) -> int:
        """The node's own time at true time `now`, ns."""
        true, own = self._clock
        return own if self.stunned else own + (now - true) * self._rate // MILLION

    def true_time(self, own: int) -> int:
        """The first true time at which a running clock shows `own`."""
        since, base = self._clock
        return since - (-(own - base) * MILLION // self._rate)

    def stop_clock(self, now: int) -> None:
        self._clock, self.stunned = (now, self.clock(now)), True

    def start_clock(self, now: int) -> None:
        self._clock, self.stunned = (now, self._clock[1]), False

    @property
    def awake(self) -> bool:
        return self.process is Process.RUNS and self.powered and not self.stunned

    def serves(self, now: int) -> bool:
        """Whether its kernel would answer for the VIP."""
        return self.holds and self.powered and not self.stunned and self.clock(now) < self.lease_until
