"""What differs between two mappings that share most of their values, fast. Pure.

Every stage (resolve, plan, reconcile) takes its previous result and passes on the same objects for whatever did not
change, so the next stage finds the difference by identity: 10k services x 10 servers in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import is_not
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def changed_keys(old: Mapping[K, V], new: Mapping[K, V]) -> set[K]:
    """Keys that are in one of the two only, or whose values are neither the same object nor equal."""
    if old is new:
        return set()
    if len(old) == len(new) and not any(map(is_not, old, new)):  # same keys in the same order: compare at C speed
        candidates = compress(new, map(is_not, old.values(), new.values()))
        return {key for key in candidates if old[key] != new[key]}
    missing = object()
    changed = {key for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key, missing)
        if before is not value and before != value:
            changed.add(key)
    return changed
