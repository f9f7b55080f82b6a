"""A restart of lbnoded: the election process that serves meanwhile waits for a data plane that takes long to open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lbnode.config.bootstrap import NodeConfig
from lbnode.dataplane.fake import FakePlane
from lbnode.election.succession import Succession
from lbnode.errors import DataPlaneError
from lbnode.node import Node
from lbnode.store.embedded import EmbeddedStore


class SlowPlane(FakePlane):
    """`serving`: the earlier daemon's process. What it knew when this data plane began to open is in `claimed`."""

    def __init__(self, serving: Succession) -> None:
        super().__init__()
        self.serving = serving
        self.claimed: bool | None = None

    async def open(self) -> None:
        assert not self.serving.asked()  # it shall not step aside yet
        self.claimed = self.serving.claimed
        raise DataPlaneError("no data plane")


def test_it_is_claimed_before_the_data_plane_opens(tmp_path: Path) -> None:
    serving = Succession()
    serving.listen(str(tmp_path / "election.sock"))
    plane = SlowPlane(serving)

    async def main() -> None:
        config = NodeConfig("gw1", state_dir=tmp_path, run_dir=tmp_path)
        node = Node(config, EmbeddedStore(tmp_path / "config.sqlite"), plane, "the test says so")
        with pytest.raises(DataPlaneError, match="no data plane"):
            await node.run(asyncio.Event())

    asyncio.run(main())
    assert plane.claimed
    for one in serving.sockets:
        one.close()
