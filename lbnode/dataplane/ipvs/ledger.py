"""What lbnode itself put into ip_vs, which many may program: remembered on disk for the process that comes next.

A log of lines, `+NAME` before something is put and `-NAME` after it was deleted, so that a process killed in between
leaves a name too many, never one too few. It belongs into a directory that a reboot empties, as it empties ip_vs.
"""

from __future__ import annotations

import os
from pathlib import Path

from lbnode.errors import DataPlaneError


class Ledger:
    """A set of names (ids of services, states of sync daemons) on disk. Errors are DataPlaneError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: set[str] = set()
        self._file = -1

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def open(self) -> None:
        """Read it, and write it anew without what was deleted."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise DataPlaneError(f"{self.path}: cannot be read: {error}; remove it to start without") from None
        self._names = set()
        for line in text.splitlines():
            (self._names.add if line.startswith("+") else self._names.discard)(line[1:])
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            temporary.write_text("".join(f"+{name}\n" for name in sorted(self._names)), encoding="utf-8")
            temporary.replace(self.path)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise DataPlaneError(f"{self.path}: cannot be written: {error.strerror}", error.errno) from None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def add(self, name: str) -> None:
        if name not in self._names:
            self._write(f"+{name}\n")
            self._names.add(name)

    def discard(self, name: str) -> None:
        if name in self._names:
            self._write(f"-{name}\n")
            self._names.discard(name)

    def _write(self, line: str) -> None:
        """Without fsync(2): a machine that loses power loses ip_vs's table as well."""
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            raise DataPlaneError(f"{self.path}: cannot be written: {error.strerror}", error.errno) from None
