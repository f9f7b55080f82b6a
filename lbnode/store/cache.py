"""The last good configuration on disk, so that a gateway boots and serves while no configuration store answers."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from types import MappingProxyType

from lbnode.atomic_file import replace_file
from lbnode.store.base import Entry, View

log = logging.getLogger(__name__)

_FORMAT = 1
_Entries = dict[str, list[int | str]]  # key -> [revision, value]


class ConfigCache:
    """One JSON file: {"format", "sha256" of the rest, "revision", "entries": {key: [revision, value]}}.

    Blocking (it syncs to disk): call it from a thread. `problem` says why the last `load` found nothing usable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem = ""

    def save(self, view: View) -> None:
        """Replace the file atomically; after a power cut there is the old or the new one, complete. OSError."""
        entries: _Entries = {key: [entry.revision, entry.value] for key, entry in sorted(view.entries.items())}
        document = {"format": _FORMAT, "sha256": _digest(view.revision, entries)}
        document |= {"revision": view.revision, "entries": entries}
        # Check settings may hold secrets: the file is readable by the owner only.
        replace_file(self.path, json.dumps(document, indent=0))

    def load(self) -> View | None:
        """The saved view. None if there is none, or it is damaged: then it is moved to `<name>.damaged`."""
        self.problem = ""
        try:
            return _parse(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"{self.path}: cannot be read: {error.strerror}"
        except ValueError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self.problem = f"{self.path}: damaged, ignored and moved to {aside.name}: {error}"
            try:
                self.path.replace(aside)
            except OSError as move_error:
                self.problem = f"{self.path}: damaged and ignored: {error} (cannot be moved: {move_error.strerror})"
        log.warning("%s", self.problem)
        return None


def _digest(revision: int, entries: _Entries) -> str:
    return hashlib.sha256(json.dumps([revision, entries], sort_keys=True).encode()).hexdigest()


def _parse(data: bytes) -> View:
    """ValueError says what is wrong."""
    document = json.loads(data.decode())
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"not a configuration cache of format {_FORMAT}")
    try:
        revision, entries = document["revision"], document["entries"]
        if document["sha256"] != _digest(revision, entries):
            raise ValueError("checksum mismatch")
        loaded = {key: Entry(value, at) for key, (at, value) in entries.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"incomplete: {error}") from None
    return View(revision, MappingProxyType(loaded))
