"""What the election process knows of a group's owner in the shared store, as lbnode.ownership tells it. Pure."""

from __future__ import annotations

ASK_AGAIN = 1_000_000_000  # ns that an answer counts: while the owner lives but is not heard, etcd is not flooded


class Ownership:
    """`store`: whether the shared store answers; None: there is none. `node`, `epoch`: the owner that it names."""

    def __init__(self) -> None:
        self.store: bool | None = None
        self.node = ""
        self.epoch = 0
        self.named_at = 0  # when we were told so, ns
        self.alive = False  # the owner has answered the last question
        self.answer_of = ""  # whom that was about
        self._asked_for = self._asked_at = 0
        self._answered_for = 0
        self._answered_at = 0

    def wants_to_ask(self, timer: int, now: int, *, refused: bool) -> bool:
        """Ask for this timer? Not if there is no store, nor if the owner has said a moment ago that it lives.

        `refused`: a takeover has been refused and nobody was heard since. Else what was said is of an earlier silence.
        """
        if not self.store:
            return False
        self._asked_for = timer
        if refused and self.alive and now - self._answered_at < ASK_AGAIN:
            self._answered_for = timer
            return False
        self._asked_at = now
        return True

    def waits(self, now: int, within: int) -> bool:
        """It was asked less than `within` ns ago and may answer yet."""
        return self.store is True and self._answered_for != self._asked_for and now - self._asked_at < within

    def name(self, node: str, epoch: int, now: int) -> None:
        """The store names this owner."""
        self.node, self.epoch, self.named_at = node, epoch, now

    def answer(self, node: str, alive: bool, now: int) -> None:
        self.answer_of, self.alive = node, alive
        self._answered_for, self._answered_at = self._asked_for, now

    def answered(self, timer: int) -> bool | None:
        """Whether the store has answered what was asked for this timer; None: there is no store."""
        return None if self.store is None else self._answered_for == timer and timer != 0
