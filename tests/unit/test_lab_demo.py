"""What the demonstration puts, measures and prints."""

from __future__ import annotations

import io

from lbnode.lab.demo import SERVERS, VIP, documents
from lbnode.lab.display import Display
from lbnode.lab.probe import Window
from lbnode.lab.realserver import BIG_LINE, prepare_nginx


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_documents_are_one_key_per_real_server() -> None:
    keys = documents()
    for address, weight in SERVERS.values():
        assert keys[f"services/tcp:{VIP}:80/servers/{address}:80"] == {"weight": weight, "forward": "masquerade"}
    assert len([key for key in keys if "/servers/" in key]) == 9


def test_the_longest_gap_counts_the_ends_of_the_window() -> None:
    window = Window(began=10.0)
    assert window.report(12.0)["longest_gap"] == 2.0  # no answer at all
    for now in (10.1, 10.2, 10.7):
        window.answer(now)
    assert window.report(10.8)["longest_gap"] == 0.5
    assert window.report(12.7)["longest_gap"] == 2.0  # nothing since the last answer
    window.answer(12.75)
    assert window.report(12.8)["longest_gap"] == 2.05
    assert Window(began=0.0, last=0.0).longest_gap == 0.0


def test_without_a_terminal_only_finished_lines_appear() -> None:
    out = io.StringIO()
    display = Display(steps=2, out=out)
    display.step("First")
    display.tick("waiting")
    display.detail("one\ntwo")
    display.done("all well")
    assert out.getvalue().splitlines()[:4] == ["", "[1/2] First", "      one", "      two"]
    assert "waiting" not in out.getvalue() and "\r" not in out.getvalue()


def test_on_a_terminal_the_live_line_is_replaced() -> None:
    out = Terminal()
    display = Display(steps=2, out=out)
    display.step("First")
    display.tick("waiting for it")
    display.done("all well")
    assert "[############............]" in out.getvalue() and "waiting for it\r\x1b[K   ok all well" in out.getvalue()


def test_every_line_of_the_download_says_its_position(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("lbnode.lab.realserver.BIG_LINES", 100)
    configuration = prepare_nginx(tmp_path, 8000, "rs9")
    assert "listen 8000" in configuration.read_text()
    assert (tmp_path / "pages/index.html").read_text() == "rs9\n"
    lines = (tmp_path / "pages/big").read_text().splitlines(keepends=True)
    assert len(BIG_LINE % 0) == 64 and lines == [BIG_LINE % number for number in range(100)]
