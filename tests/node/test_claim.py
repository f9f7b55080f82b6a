"""A restart of lbnoded: the election process that serves meanwhile waits for a data plane that takes long to open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from lbnode.config.bootstrap import NodeConfig
from lbnode.dataplane.fake import FakePlane
from lbnode.election import predecessor
from lbnode.election.succession import Succession
from lbnode.errors import DataPlaneError
from lbnode.node import Node
from lbnode.store.embedded import EmbeddedStore


class SlowPlane(FakePlane):
    """`serving`: the earlier daemon's process. `heard`: what it heard at each look while this data plane opened."""

    def __init__(self, serving: Succession) -> None:
        super().__init__()
        self.serving = serving
        self.heard: list[bool] = []

    def look(self) -> None:
        assert not self.serving.asked()  # it shall not step aside yet
        self.heard.append(self.serving.heard)

    async def open(self, progressed: Callable[[], None] = lambda: None) -> None:
        self.look()
        self.look()
        progressed()
        self.look()
        raise DataPlaneError("no data plane")


def test_it_hears_of_the_next_daemon_and_whenever_its_data_plane_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "PROGRESS_EVERY_S", 0.0)
    serving = Succession()
    serving.listen(str(tmp_path / "election.sock"))
    plane = SlowPlane(serving)

    async def main() -> None:
        config = NodeConfig("gw1", state_dir=tmp_path, run_dir=tmp_path)
        node = Node(config, EmbeddedStore(tmp_path / "config.sqlite"), plane, "the test says so")
        with pytest.raises(DataPlaneError, match="no data plane"):
            await node.run(asyncio.Event())

    asyncio.run(main())
    assert plane.heard == [True, False, True]
    for one in serving.sockets:
        one.close()
