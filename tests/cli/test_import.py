"""lbctl import: documents on stdout, what is not in them on stderr, and the exit status."""

from __future__ import annotations

import io
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.importer import import_ipvsadm
from lbnode.cli.ipvsadm.table import Table, rows
from lbnode.cli.lbctl import main as lbctl
from lbnode.config.parse import parse_document
from lbnode.model import ServerId, ServiceId, flags_of
from tests.reference.host import ReferenceHost

HOST = ReferenceHost()
SAVED = """\
-A -t 192.0.2.1:80 -s sh -p 120 -M 255.255.255.0 -b sh-fallback,sh-port
-a -t 192.0.2.1:80 -r 198.51.100.1:8080 -m -w 3
-a -t 192.0.2.1:80 -r 198.51.100.2:80 -g -w 0
-a -t 192.0.2.1:80 -r 198.51.100.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A -u [2001:db8::1]:53 -s rr -o
-a -u [2001:db8::1]:53 -r [2001:db8:1::1]:53 -m -w 1
-A -f 7 -s wlc
-A -f 7 -6 -s wlc
"""


def saved(document: Any) -> str:
    """`lbadm -S -n` of a table with this document."""
    lines = listing.saved(rows(Table(document, HOST)), listing.numeric)
    return "".join(f"{line}\n" for line in lines)


def in_order(text: str) -> list[str]:
    return sorted(text.splitlines())


def test_ipvsadm_comes_back_as_it_was() -> None:
    imported = import_ipvsadm(SAVED, "saved", HOST)
    assert imported.problems == ()
    assert imported.taken == 8
    assert in_order(saved(imported.document)) == in_order(SAVED)


def test_thresholds_timeouts_and_daemons_come_along() -> None:
    """What ipvsadm -S leaves out, but scripts and `lbadm -S --full` have."""
    text = "# rules\nipvsadm -A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 198.51.100.1 -m -x 9 -y 4\n"
    text += "--set 600 0 30\n--start-daemon backup --mcast-interface gone0 --syncid 3\n"
    imported = import_ipvsadm(text, "saved", HOST)
    assert imported.problems == ()
    assert imported.document["services"]["tcp:192.0.2.1:80"]["servers"]["198.51.100.1:80"]["upper_threshold"] == 9
    assert imported.document["settings"]["timeouts"] == {"tcp": 600, "tcp_fin": 120, "udp": 30}
    assert imported.document["settings"]["sync_daemons"]["backup"]["interface"] == "gone0"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "-A -t nowhere.example:80",
            "saved:2: -A -t nowhere.example:80: illegal virtual server address[:port] specified",
        ),
        ("-A -t 192.0.2.1:80", "saved:2: -A -t 192.0.2.1:80: Service already exists"),
        ("-a -t 192.0.2.9:80 -r 198.51.100.1", "Service not defined"),
        ("-A -t 192.0.2.2:80 -s nosuch", "Scheduler or persistence engine not found"),
        ("-A -t 192.0.2.2:80 -p 9 --pe nosuch", "without the persistence engine nosuch"),
        ("-A -f -5", "invalid fwmark value `-5' specified"),
        ("-Z", "saved:2: -Z: changes nothing"),
    ],
)
def test_lines_that_are_not_taken_over_are_listed(line: str, problem: str) -> None:
    imported = import_ipvsadm(f"-A -t 192.0.2.1:80 -s rr\n{line}\n-A -t 192.0.2.3:80 -s rr\n", "saved", HOST)
    assert [problem in str(found) for found in imported.problems] == [True]
    assert {"tcp:192.0.2.1:80", "tcp:192.0.2.3:80"} <= imported.document["services"].keys()


ADDRESSES = {
    4: st.integers(1, 9).map(lambda number: ip_address(f"198.51.100.{number}")),
    6: st.integers(1, 9).map(lambda number: ip_address(f"2001:db8::{number}")),
}


@st.composite
def tables(draw: st.DrawFn) -> str:
    """What ipvsadm -S -n can print."""
    lines = []
    for number in draw(st.sets(st.integers(1, 9), max_size=4)):
        family = draw(st.sampled_from([4, 6]))
        if draw(st.booleans()):
            key, target = ServiceId(None, None, 0, fwmark=number, inet6=family == 6), f"-f {number}"
            target += " -6" if family == 6 else ""
        else:
            virtual = ip_address(f"192.0.2.{number}" if family == 4 else f"2001:db8:2::{number}")
            key = ServiceId.of("tcp", str(virtual), 80)
            target = f"-t {listing.numeric(str(virtual), 80, '')}"
        scheduler = draw(st.sampled_from(["rr", "wlc", "sh", "mh"]))
        words = ["-A", target, "-s", scheduler]
        if draw(st.booleans()):
            words += ["-p", str(draw(st.integers(1, 900)))]
            if draw(st.booleans()):
                words += ["-M", draw(st.sampled_from(["255.255.0.0", "255.0.255.0"])) if family == 4 else "64"]
        if draw(st.booleans()):
            words += ["--pe", "sip"]
        if key.fwmark and draw(st.booleans()):
            words.append("-o")
        known = flags_of(scheduler) if scheduler in ("rr", "wlc") else flags_of(scheduler)[:2]  # those that -S shows
        if flags := draw(st.sets(st.sampled_from(known))):
            words += ["-b", ",".join(flag for flag in flags_of(scheduler) if flag in flags)]
        lines.append(" ".join(words))
        for address in draw(st.sets(ADDRESSES[family], max_size=3)):
            forward = draw(st.sampled_from(["-m", "-g", "-i"]))
            weight = draw(st.integers(0, 65535))
            line = f"-a {target} -r {ServerId(address, 80)} {forward} -w {weight}"
            lines.append(f"{line} --tun-type ipip" if forward == "-i" else line)
    return "".join(f"{line}\n" for line in lines)


@given(tables())
def test_every_saved_table_comes_back(text: str) -> None:
    imported = import_ipvsadm(text, "saved", HOST)
    assert imported.problems == ()
    assert in_order(saved(imported.document)) == in_order(text)


@given(st.text(alphabet="-ATaDCRtrfsgmiw 192.0.:[]\n#'\"", max_size=200))
def test_any_text_imports(text: str) -> None:
    imported = import_ipvsadm(text, "saved", HOST)
    assert not imported.document or parse_document(yaml.safe_dump(dict(imported.document)), "x").problems == ()


# --- the command ---------------------------------------------------------------------------------------------


def test_lbctl_import_ipvsadm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("-A -t 192.0.2.1:80 -s rr\n-A -t x -s rr\n"))
    assert lbctl.main(["import", "ipvsadm"]) == 1
    answer = capsys.readouterr()
    assert yaml.safe_load(answer.out) == {"services": {"tcp:192.0.2.1:80": {"scheduler": "rr"}}}
    assert answer.err.splitlines() == [
        "standard input:2: error: -A -t x -s rr: illegal virtual server address[:port] specified",
        "lbctl: 1 line taken over, 1 error, 0 warnings",
    ]


def test_lbctl_import_keepalived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.conf").write_text("virtual_server 192.0.2.2 80 {\nprotocol TCP\n}\n")
    main = tmp_path / "keepalived.conf"
    main.write_text("include more/*.conf\nvirtual_server 192.0.2.1 80 {\nprotocol TCP\nomega\n}\n")
    assert lbctl.main(["import", f"gw1={main}"]) == 0
    answer = capsys.readouterr()
    assert list(yaml.safe_load(answer.out)["services"]) == ["tcp:192.0.2.1:80", "tcp:192.0.2.2:80"]
    assert answer.err.splitlines() == [
        f"{main}:4:1: warning: omega: not needed (about scripts at the end, which lbnode does not run)",
        "lbctl: 4 lines taken over, 0 errors, 1 warning",
    ]


def test_lbctl_import_keepalived_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("virtual_server 192.0.2.1 80 {\nprotocol TCP\nquorum 3\n}\n"))
    assert lbctl.main(["import", "-"]) == 1
    answer = capsys.readouterr()
    assert list(yaml.safe_load(answer.out)["services"]) == ["tcp:192.0.2.1:80"]
    assert answer.err.startswith("standard input:3:1: error: quorum 3: no equal yet (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/file"], "lbctl: /no/such/file: "),
        (["gw1=/no/such/file"], "lbctl: /no/such/file: "),
        (["ipvsadm", "a", "b"], "lbctl: import ipvsadm takes one file"),
        (["/dev/null", "/dev/null"], "lbctl: name the node of each file: lbctl import gw1=FILE gw2=FILE"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lbctl.main(["import", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
