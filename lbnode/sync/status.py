"""What the synchronisation with one peer looks like, for CLI, UI and metrics. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncPeerInfo:
    name: str
    address: str
    state: str  # "connecting" | "bulk" | "in-sync" | "silent" | "refused: ..."
    sent_records: int
    received_records: int
    lag_s: float  # age of the oldest record that the peer has not acknowledged
    problem: str = ""
    bad_datagrams: int = 0
    refused_records: int = 0  # received, but of an epoch that does not count: see lbnode.epochs
