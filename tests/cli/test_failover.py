"""What `lbctl failover` asks the node for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import pytest

from lbnode.cli.client import EXIT_FAILED, ApiError, Client
from lbnode.cli.lbctl.electing import failover


class Node(Client):
    """Hands over whatever it is asked, `heir` permitting."""

    def __init__(self, heir: str | None) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self._heir = heir

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        self.asked.append((method, path))
        if self._heir is None:
            raise ApiError("VIP group front: gw1 is backup", EXIT_FAILED)
        return {"node": "gw1", "to": self._heir}


def ask(node: Node, *, to: str = "", dry_run: bool = False) -> None:
    assert failover(argparse.Namespace(group="front", to=to, dry_run=dry_run), node) == 0


PATH = "/api/v1/vip-groups/front/handover"


def test_a_dry_run_never_asks_for_a_handover(capsys: pytest.CaptureFixture[str]) -> None:
    for heir, shown in (("gw2", "gw2"), ("", "the best backup, if there is one")):
        node = Node(heir)
        ask(node, dry_run=True)
        assert capsys.readouterr().out == f"front: gw1 -> {shown}\n"
        assert node.asked == [("GET", PATH)]
    node = Node(None)
    with pytest.raises(ApiError, match="gw1 is backup"):
        ask(node, dry_run=True)
    assert node.asked == [("GET", PATH)], "also where it is refused: the node may be active in the next moment"


def test_a_handover_is_shown_then_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node("gw2")
    ask(node, to="gw2")
    assert capsys.readouterr().out == "front: gw1 -> gw2\n"
    assert node.asked == [("GET", PATH + "?to=gw2"), ("POST", PATH + "?to=gw2")]
