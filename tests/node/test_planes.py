"""Which data plane a node drives: node.toml, then the settings (from the store, or its cache), then the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lbnode import planes
from lbnode.config.bootstrap import DataPlaneConfig, NodeConfig
from lbnode.errors import StoreUnavailable
from lbnode.planes import Choice, choose
from lbnode.store.base import Entry, View
from lbnode.store.cache import ConfigCache
from lbnode.store.embedded import EmbeddedStore
from tests.conftest import NEEDS
from tests.node.daemon import Daemon

SETTINGS = '{"dataplane": "ipvs"}'


class Down(EmbeddedStore):
    async def snapshot(self) -> View:
        raise StoreUnavailable("no member answers")


def chosen(tmp_path: Path, kind: str = "auto", settings: str | None = None, *, down: bool = False) -> Choice:
    async def main() -> Choice:
        store = (Down if down else EmbeddedStore)(tmp_path / "config.sqlite")
        try:
            if settings is not None:
                await store.txn({"settings": settings})
            return await choose(NodeConfig("gw1", state_dir=tmp_path, dataplane=DataPlaneConfig(kind)), store)
        finally:
            await store.close()

    return asyncio.run(main())


@pytest.fixture
def kernel_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "missing_ip_vs", lambda: "")


@pytest.fixture
def kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "missing_ip_vs", lambda: "this kernel has no ip_vs")


def test_node_toml_decides(tmp_path: Path, kernel_has: None) -> None:
    assert chosen(tmp_path, "xdp", SETTINGS) == Choice("xdp", "node.toml says so")


def test_else_the_settings(tmp_path: Path, kernel_lacks: None) -> None:
    assert chosen(tmp_path, settings=SETTINGS) == Choice("ipvs", "the cluster's settings say so")


def test_without_a_store_its_cache(tmp_path: Path, kernel_lacks: None) -> None:
    assert chosen(tmp_path, down=True).kind == "xdp"
    ConfigCache(tmp_path / "config.cache").save(View(3, {"settings": Entry(SETTINGS, 3)}))
    assert chosen(tmp_path, down=True).kind == "ipvs"


@pytest.mark.parametrize("settings", [None, "{}", '{"dataplane": "auto"}', '{"dataplane": 7}'])
def test_else_the_kernel(tmp_path: Path, settings: str | None, kernel_has: None) -> None:
    assert chosen(tmp_path, settings=settings) == Choice("ipvs", "this kernel has ip_vs")


def test_a_kernel_without_ip_vs_gets_xdp_and_one_line(tmp_path: Path, kernel_lacks: None) -> None:
    assert chosen(tmp_path) == Choice("xdp", "this kernel has no ip_vs")


@pytest.mark.skipif(not NEEDS["ipvs"](), reason="this kernel has ip_vs")
def test_ipvs_that_is_demanded_and_missing_ends_the_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, plane="ipvs")
    with pytest.raises(AssertionError, match="lbnoded ended"):
        daemon.start()
    assert daemon.process is not None and daemon.process.returncode == 1
    assert "lbnoded: this kernel has no ip_vs: install the modules" in daemon.text()
