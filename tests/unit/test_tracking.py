"""What groups track: each kind, failing and not; programs that are run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.model import Track, VipAddress, VipGroup
from lbnode.sync.status import SyncPeerInfo
from lbnode.tracking import Facts, Scripts, failing

WEB = "tcp:192.0.2.10:80"


def group(*tracks: Track) -> VipGroup:
    return VipGroup("front", 51, (VipAddress(ip_address("192.0.2.10"), 24),), {"gw1": 250}, track=tracks)


def sync_peer(state: str) -> SyncPeerInfo:
    return SyncPeerInfo("gw2", "198.51.100.3:8848", state, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("track", "good", "bad", "reason"),
    [
        (Track("dataplane"), Facts(), Facts(dataplane=False), "the data plane is not loaded"),
        (
            Track("sync"),
            Facts(sync=[sync_peer("in-sync"), sync_peer("silent")]),
            Facts(sync=[sync_peer("bulk")]),
            "connections are not synchronised with gw2 yet",
        ),
        (
            Track("service", WEB, share=0.5),
            Facts(up={WEB: (1, 2)}),
            Facts(up={WEB: (1, 3)}),
            f"1 of 3 servers of {WEB} are up",
        ),
        (Track("service", WEB), Facts(up={WEB: (1, 1)}), Facts(), f"0 of 0 servers of {WEB} are up"),
        (Track("script", "uplink"), Facts(scripts={"uplink": ""}), Facts(), "uplink: it has not run yet"),
        (
            Track("script", "uplink"),
            Facts(scripts={"uplink": ""}),
            Facts(scripts={"uplink": "exit status 1"}),
            "uplink: exit status 1",
        ),
    ],
)
def test_each_kind(track: Track, good: Facts, bad: Facts, reason: str) -> None:
    assert failing(group(track), good) == {}
    assert failing(group(track), bad) == {str(track): reason}


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "serve"
    track = Track("file", str(path))
    assert failing(group(track), Facts()) == {f"file {path}": f"{path} does not exist"}
    path.touch()
    assert failing(group(track), Facts()) == {}


def test_interfaces_and_gateways_are_looked_at_elsewhere() -> None:
    assert failing(group(Track("interface", "eth9"), Track("gateway", "192.0.2.254")), Facts(dataplane=False)) == {}


@pytest.fixture
async def scripts(tmp_path: Path) -> AsyncIterator[Scripts]:
    for name, body in (("good", "exit 0"), ("bad", "exit 3"), ("slow", "sleep 60")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    made = Scripts(str(tmp_path))
    yield made
    made.stop()


async def test_programs_are_judged_by_exit_status_and_time(scripts: Scripts) -> None:
    scripts.configure([group(*(Track("script", name, interval_s=0.2) for name in ("good", "bad", "slow", "none")))])
    wanted = {
        "good": "",
        "bad": "exit status 3",
        "slow": "did not end within 0.2 s",
        "none": "cannot be run: No such file or directory",
    }
    async with asyncio.timeout(20):
        while scripts.results != wanted:
            await asyncio.sleep(0.01)
    scripts.configure([])
    assert scripts.results == {}
