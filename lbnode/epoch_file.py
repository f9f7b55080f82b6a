"""The epochs of the VIP groups on disk: a node that comes back while no store answers knows which ones have been."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from lbnode.atomic_file import replace_file
from lbnode.epochs import Epochs, Kept
from lbnode.journal import Journal, Kind

LOOK_INTERVAL_S = 0.1

log = logging.getLogger(__name__)


class EpochFile:
    """One JSON file: group -> [highest epoch seen, epoch of this node's connections]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._holds: Mapping[str, Kept] = {}

    def load(self) -> dict[str, Kept]:
        """Empty if there is none. A damaged one is worth no more: the store and the peers tell again."""
        found: dict[str, Kept] = {}
        try:
            found = _parse(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read and is ignored: %s", self.path, error)
        self._holds = found
        return found

    def save(self, groups: Mapping[str, Kept]) -> None:
        """Blocking; OSError."""
        replace_file(self.path, json.dumps(groups, indent=0, sort_keys=True))
        self._holds = groups

    async def follow(self, epochs: Epochs, journal: Journal) -> None:
        """Write down what changes, until cancelled. In a thread: a slow disk delays nothing but this."""
        told = ""
        try:
            while True:
                await asyncio.sleep(LOOK_INTERVAL_S)
                if (kept := epochs.kept()) == self._holds:
                    continue
                try:
                    await asyncio.to_thread(self.save, kept)
                    told = ""
                except OSError as error:
                    if told != str(error):
                        told = str(error)
                        journal.record(Kind.ELECTION, str(self.path), "epochs not written", told)
        finally:
            if epochs.kept() != self._holds:
                with contextlib.suppress(OSError):
                    self.save(epochs.kept())


def _parse(text: str) -> dict[str, Kept]:
    """ValueError says what is wrong."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a file's content, not an argument
    for name, value in document.items():
        numbers = isinstance(value, list) and len(value) == len(Kept._fields)
        if not numbers or not all(type(one) is int and 0 <= one < 1 << 64 for one in value):
            raise ValueError(f"{name!r} is not [highest epoch seen, epoch of the connections]: {value!r}")
    return {name: Kept(*value) for name, value in document.items()}
