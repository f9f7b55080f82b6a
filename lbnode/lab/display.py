"""What the demonstration prints: numbered steps in plain words, with a live line and a bar on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 24


class Display:
    """On a terminal the last line shows a bar and what is being waited for; elsewhere only finished lines appear."""

    def __init__(self, steps: int, out: TextIO = sys.stdout) -> None:
        self.steps = steps
        self.out = out
        self.live = out.isatty()
        self.number = 0
        self.title = ""
        self.began = 0.0
        self._drawn = False

    def step(self, title: str) -> None:
        self.number += 1
        self.title, self.began = title, time.monotonic()
        self.say(f"\n[{self.number}/{self.steps}] {title}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        print(text, file=self.out, flush=True)

    def detail(self, text: str) -> None:
        self.say("      " + text.replace("\n", "\n      "))

    def done(self, text: str) -> None:
        self.say(f"   ok {text} ({time.monotonic() - self.began:.1f} s)")

    def failed(self, text: str) -> None:
        self.say(" FAIL " + text.replace("\n", "\n      "))

    def tick(self, text: str) -> None:
        """What is going on right now; shown on a terminal only, replaced by whatever comes next."""
        if not self.live:
            return
        full = _BAR * self.number // self.steps
        line = f"[{'#' * full}{'.' * (_BAR - full)}] {time.monotonic() - self.began:4.1f} s  {text}"
        self.out.write(f"\r\x1b[K{line[:110]}")
        self.out.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self.out.write("\r\x1b[K")
            self._drawn = False
