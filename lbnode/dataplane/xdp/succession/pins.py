"""Where sets of maps are pinned: `maps-N` in the data plane's bpffs, beside the links. The largest N is the newest.

More than one is there while connections are carried over, and after a process that died meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lbnode.dataplane.xdp import counts, layout, syscall
from lbnode.dataplane.xdp.maps import Map

TAKE_ALL = "take_all"  # the only program that is pinned, with the maps that it reads
_PREFIX = "maps-"


class PinnedSet:
    """A set of maps that an earlier process, perhaps of another version, made ready."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.maps: Mapping[str, Map] = {
            pin.name: Map.pinned(pin) for pin in sorted(path.iterdir()) if pin.name != TAKE_ALL
        }
        self.take_all = syscall.obj_get(str(path / TAKE_ALL))

    @property
    def layout(self) -> int:
        return layout.unpack_meta(self.maps["meta"].get_index(0))

    @property
    def buckets(self) -> int:
        return self.maps["conns"].info.max_entries

    @property
    def connections(self) -> int:
        """In its table, as its programs count them. The set is of this layout."""
        return counts.unpack_event(self.maps["events"].get_index(layout.Event.ENTRIES))

    def close(self) -> None:
        for one in self.maps.values():
            one.close()
        os.close(self.take_all)


class Pins:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def sets(self) -> list[PinnedSet]:
        """Those that were made ready, oldest first; what is left of others is removed."""
        found = []
        for path in sorted(self._directory.glob(f"{_PREFIX}*"), key=_number):
            if _ready(path):
                found.append(PinnedSet(path))
            else:
                remove(path)
        return found

    def new(self) -> Path:
        path = self._directory / f"{_PREFIX}{1 + max(map(_number, self._directory.glob(f'{_PREFIX}*')), default=0)}"
        path.mkdir(mode=0o700)
        return path

    def forget_older(self) -> int:
        """Layout version of maps that a version before these sets pinned, which are forgotten; 0 = there are none."""
        version = 0
        if (self._directory / "meta").exists():
            meta = Map.pinned(self._directory / "meta")
            version = layout.unpack_meta(meta.get_index(0))
            meta.close()
        for pin in self._directory.iterdir():
            if not pin.is_dir() and not pin.name.startswith("link-") and not pin.name.endswith(".debug"):
                pin.unlink()
        return version


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _ready(path: Path) -> bool:
    if not (path / "meta").exists() or not (path / TAKE_ALL).exists():
        return False
    meta = Map.pinned(path / "meta")
    try:
        return layout.unpack_meta(meta.get_index(0)) != 0
    finally:
        meta.close()


def remove(path: Path) -> None:
    """Forget a set: the kernel frees it when no program uses it any more."""
    for pin in path.iterdir():
        pin.unlink()
    path.rmdir()
