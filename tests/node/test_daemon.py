"""The composed daemon: configuration in, data plane out, faults reported and survived. Single node, embedded store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lbnode.store.embedded import EmbeddedStore
from tests.node.daemon import OWN_NETWORK, Daemon, free_port, until

WEB = "tcp:192.0.2.10:80"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


def write(daemon: Daemon, puts: dict[str, str], deletes: tuple[str, ...] = ()) -> None:
    """Another program writes to the store directly, as etcdctl does: nothing is validated."""

    async def put() -> None:
        store = EmbeddedStore(daemon.root / "state" / "config.sqlite")
        await store.txn(puts, deletes)
        await store.close()

    asyncio.run(put())


def put(daemon: Daemon, key: str, document: dict[str, Any]) -> None:
    write(daemon, {key: json.dumps(document)})


def weights(daemon: Daemon, service: str = WEB) -> dict[str, int | None]:
    info = daemon.service(service)
    return {server["id"]: server["effective_weight"] for server in info["servers"]} if info else {}


def test_lines_of_lbadm_configure_and_show(daemon: Daemon) -> None:
    for line in (
        "-A -t 192.168.1.1:80 -s rr",
        "-a -t 192.168.1.1:80 -r 192.168.2.2 -w 1 -g",
        "-a -t 192.168.1.1:80 -r 192.168.2.3 -w 2 -m",
    ):
        done = daemon.run("lbadm", *line.split())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.run("lbadm", "-Ln").stdout.splitlines() == [
        "IP Virtual Server version 1.2.1 (size=4096)",
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
        "TCP  192.168.1.1:80 rr",
        "  -> 192.168.2.2:80               Route   1      0          0         ",
        "  -> 192.168.2.3:80               Masq    2      0          0         ",
    ]
    assert daemon.run("lbadm", "-A", "-t", "192.168.1.1:80").stderr == "Service already exists\n"
    assert daemon.run("lbadm", "-a", "-t", "192.168.1.9:80", "-r", "192.168.2.2").stderr == "Service not defined\n"
    edited = daemon.run("lbadm", "-e", "-t", "192.168.1.1:80", "-r", "192.168.2.3", "-w", "7", "-m")
    assert edited.returncode == 0
    assert "Masq    7 " in daemon.run("lbadm", "-Ln").stdout
    assert daemon.run("lbadm", "-d", "-t", "192.168.1.1:80", "-r", "192.168.2.2").returncode == 0
    assert daemon.run("lbadm", "-d", "-t", "192.168.1.1:80", "-r", "192.168.2.2").returncode == 255
    saved = daemon.run("lbadm", "-S", "-n").stdout
    assert saved == "-A -t 192.168.1.1:80 -s rr\n-a -t 192.168.1.1:80 -r 192.168.2.3:80 -m -w 7\n"
    assert daemon.run("lbadm", "-C").returncode == 0
    assert len(daemon.run("lbadm", "-Ln").stdout.splitlines()) == 3
    for view in ("--stats", "-c"):
        assert daemon.run("lbadm", "-Ln", view).returncode == 0


def test_lbctl_apply_diff_drain_weight(daemon: Daemon, tmp_path: Path) -> None:
    document = tmp_path / "lb.yaml"
    document.write_text(
        f"services:\n  {WEB}:\n    scheduler: wrr\n    servers:\n"
        "      198.51.100.31:80: {weight: 2}\n      198.51.100.32:80: {}\n"
    )
    assert daemon.run("lbctl", "diff", "-f", str(document)).returncode == 1
    done = daemon.run("lbctl", "apply", "-f", str(document), "--wait")
    assert done.returncode == 0, done.stderr
    assert "+ services/tcp:192.0.2.10:80\n" in done.stdout
    assert weights(daemon) == {"198.51.100.31:80": 2, "198.51.100.32:80": 1}
    assert daemon.run("lbctl", "diff", "-f", str(document)).returncode == 0
    unchanged = daemon.run("lbctl", "apply", "-f", str(document), "--wait=5")
    assert unchanged.returncode == 0 and unchanged.stdout.startswith("unchanged\nprogrammed at revision ")
    assert daemon.run("lbctl", "drain", "198.51.100.31:80").returncode == 0
    until(lambda: weights(daemon)["198.51.100.31:80"] == 0, "drained")
    assert daemon.run("lbctl", "undrain", "198.51.100.31:80", "-s", WEB).returncode == 0
    assert daemon.run("lbctl", "weight", "198.51.100.32:80", "9").returncode == 0
    until(lambda: weights(daemon) == {"198.51.100.31:80": 2, "198.51.100.32:80": 9}, "weights changed")
    assert daemon.run("lbctl", "drain", "198.51.100.99:80").returncode == 3
    assert "create stored" in daemon.run("lbctl", "events").stdout
    for output in ("table", "json", "yaml"):
        assert WEB in daemon.run("lbctl", "get", "services", "-o", output).stdout
    assert "embedded connected" in daemon.run("lbctl", "status").stdout
    assert daemon.run("lbctl", "top", "-n", "1").returncode == 0
    explained = daemon.run("lbctl", "explain", "tcp", "198.51.100.7:40000", "192.0.2.10:80")
    assert explained.returncode == 1 and "only the XDP/tcx data plane" in explained.stderr
    taken = tmp_path / "taken"
    captured = daemon.run("lbctl", "capture", "-w", str(taken))
    assert captured.returncode == 1 and "only the XDP/tcx data plane" in captured.stderr and not taken.exists()


def test_a_bad_document_names_file_line_and_column_and_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    document = tmp_path / "lb.yaml"
    document.write_text(f"services:\n  {WEB}:\n    servers:\n      198.51.100.31:80: {{weigth: 2}}\n")
    done = daemon.run("lbctl", "apply", "-f", str(document))
    assert done.returncode == 1
    assert f"{document}:4:" in done.stderr
    assert 'did you mean "weight"' in done.stderr or "did you mean 'weight'" in done.stderr
    assert daemon.service(WEB) is None


FAULTS = [
    pytest.param("services/tcp:192.0.2.10:80", "{not json", "line 1", id="malformed JSON"),
    pytest.param("services/tcp:192.0.2.10:80", '{"schedulr": "rr"}', "scheduler", id="unknown field"),
    pytest.param(
        f"services/{WEB}/servers/198.51.100.31:80", '{"weight": 3000000000}', "weight", id="weight out of range"
    ),
    pytest.param("services/tcp:192.0.2.99:80/servers/198.51.100.31:80", "{}", "service", id="server without service"),
    pytest.param(
        f"services/{WEB}/servers/198.51.100.33:8080", '{"forward": "direct"}', "port", id="direct server, other port"
    ),
    pytest.param(
        "vip-groups/second",
        '{"vrid": 52, "addresses": ["192.0.2.10/24"], "priorities": {"gw9": 100}}',
        "192.0.2.10",
        id="duplicate VIP",
    ),
]


def test_a_policy_that_needs_etcd_is_doubted_without(daemon: Daemon) -> None:
    group = {"vrid": 51, "addresses": ["192.0.2.10/24"], "priorities": {"gw8": 100, "gw9": 50}, "policy": "consistency"}
    put(daemon, "vip-groups/first", group)
    (problem,) = until(lambda: daemon.status()["problems"], "the problem is reported")
    assert (problem["where"], problem["field"], problem["severity"]) == ("vip-groups/first", "policy", "warning")


def test_an_election_process_that_may_not_be_realtime_is_a_problem_of_the_node(tmp_path: Path) -> None:
    prefix = ("setpriv", "--bounding-set", "-sys_nice,-ipc_lock") if os.geteuid() == 0 else ()
    daemon = Daemon(tmp_path / "gw1", prefix=(*OWN_NETWORK, *prefix, "prlimit", "--memlock=0"))
    daemon.start()
    try:
        put(
            daemon, "vip-groups/first", {"vrid": 51, "addresses": ["192.0.2.10/24"], "priorities": {"gw1": 2, "gw2": 1}}
        )
        found = until(
            lambda: [p for p in daemon.status()["problems"] if p["field"] == "realtime"], "the problem is reported"
        )
        assert "advert_interval" in found[0]["message"] or "a busy CPU may move VIPs" in found[0]["message"]
        assert "memory is not locked" in found[0]["message"] and found[0]["severity"] == "warning"
    finally:
        daemon.stop()


@pytest.mark.parametrize(("key", "text", "named"), FAULTS)
def test_a_bad_value_is_reported_by_key_and_unloads_nothing(daemon: Daemon, key: str, text: str, named: str) -> None:
    put(daemon, "vip-groups/first", {"vrid": 51, "addresses": ["192.0.2.10/24"], "priorities": {"gw9": 100}})
    put(daemon, f"services/{WEB}", {"scheduler": "wrr"})
    put(daemon, f"services/{WEB}/servers/198.51.100.31:80", {"weight": 2})
    until(lambda: weights(daemon) == {"198.51.100.31:80": 2}, "the good configuration works")
    write(daemon, {key: text})
    problems = until(lambda: daemon.status()["problems"], "the problem is reported")
    assert any(problem["where"] == key and named in json.dumps(problem) for problem in problems), problems
    assert weights(daemon) == {"198.51.100.31:80": 2}
    assert daemon.service(WEB)["scheduler"] == "wrr"
    assert key in daemon.run("lbctl", "status").stdout
    # Another object goes on changing, and the mend is taken up.
    put(daemon, "services/udp:192.0.2.10:53", {"scheduler": "rr"})
    until(lambda: daemon.service("udp:192.0.2.10:53"), "others are not held up")


class _Page(BaseHTTPRequestHandler):
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_health_checks_move_weights_and_say_why(daemon: Daemon) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    good, dead = f"127.0.0.1:{server.server_port}", f"127.0.0.1:{free_port()}"
    service = "tcp:127.0.0.9:80"
    check = {"type": "http", "interval": 0.1, "timeout": 0.5, "rise": 1, "fall": 2}
    put(daemon, f"services/{service}", {"scheduler": "rr", "check": check, "when_down": "weight-zero"})
    put(daemon, f"services/{service}/servers/{good}", {})
    put(daemon, f"services/{service}/servers/{dead}", {})
    try:
        until(lambda: weights(daemon, service) == {good: 1, dead: 0}, "the dead server has weight 0")
        reasons = {item["id"]: item["health_reason"] for item in daemon.service(service)["servers"]}
        assert "refused" in reasons[dead]
        _Page.status = 503
        until(lambda: weights(daemon, service)[good] == 0, "a bad status takes the server out")
        assert any("503" in event["why"] for event in daemon.events() if event["kind"] == "health")
        _Page.status = 200
        until(lambda: weights(daemon, service)[good] == 1, "and it comes back")
    finally:
        _Page.status = 200
        server.shutdown()
        server.server_close()


def test_a_killed_daemon_restarts_with_its_configuration(daemon: Daemon) -> None:
    put(daemon, f"services/{WEB}", {"scheduler": "wrr"})
    put(daemon, f"services/{WEB}/servers/198.51.100.31:80", {"weight": 2})
    until(lambda: weights(daemon) == {"198.51.100.31:80": 2}, "configured")
    daemon.stop(signal.SIGKILL)
    daemon.start()
    until(lambda: weights(daemon) == {"198.51.100.31:80": 2}, "configured again")
    assert daemon.stop() == 0


def get(daemon: Daemon, path: str, token: str | None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_tcp_needs_the_token(daemon: Daemon) -> None:
    assert get(daemon, "/api/v1/status", None) == 401
    assert get(daemon, "/api/v1/status", "wrong") == 401
    for path in ("/api/v1/status", "/metrics", "/api/v1/openapi.json"):
        assert get(daemon, path, "secret") == 200


def test_sysctl_verbs(daemon: Daemon, tmp_path: Path) -> None:
    done = daemon.run("lbctl", "sysctl", "check")
    assert "net.netfilter.nf_conntrack_udp_timeout" in done.stdout
    old = tmp_path / "old.conf"
    old.write_text(
        "net.ipv4.netfilter.ip_conntrack_udp_timeout = 45\n"
        "net.ipv4.netfilter.ip_conntrack_tcp_timeout_syn_sent2 = 120\n"
    )
    done = daemon.run("lbctl", "sysctl", "print", "--from", str(old))
    assert "net.netfilter.nf_conntrack_udp_timeout = 45\n" in done.stdout
    assert f"{old}:2: " in done.stderr
    assert "is gone" in done.stderr


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[store]\netdc = ["http://127.0.0.1:2379"]\n', "etcd"),
        ("[sync]\nlisten = 5\n", "listen"),
        ("this is not toml", "node.toml"),
    ],
)
def test_a_bad_node_toml_ends_with_a_clear_message(tmp_path: Path, toml: str, message: str) -> None:
    daemon = Daemon(tmp_path, toml=toml)
    with pytest.raises(AssertionError, match="lbnoded ended"):
        daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait() == 1
    assert message in daemon.text()
    assert "Traceback" not in daemon.text()


@pytest.mark.parametrize("name", ["state_dir", "run_dir"])
def test_a_directory_that_cannot_be_made_is_a_clear_message(tmp_path: Path, name: str) -> None:
    daemon = Daemon(tmp_path)
    text = daemon.config.read_text()
    assert name in text
    daemon.config.write_text(text.replace(f'{name} = "{tmp_path}', f'{name} = "/proc/lbnode'))
    with pytest.raises(AssertionError, match=f"{name}: cannot use /proc/lbnode/.*: No such file or directory"):
        daemon.start()
    assert "Traceback" not in daemon.text()


def test_one_daemon_holds_its_run_directory(daemon: Daemon) -> None:
    """A second one, or --unload beside it, would change the data plane under the first."""
    for option in ([], ["--unload"]):
        command = [sys.executable, "-m", "lbnode", "--config", str(daemon.config), *option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "an lbnoded is running in" in done.stderr
        assert "started" not in done.stderr
    assert daemon.stop() == 0
    daemon.start()


def test_sighup_restarts_in_place(daemon: Daemon) -> None:
    """With the node.toml that is there now; one that is wrong restarts nothing."""
    assert daemon.process is not None
    pid, started = daemon.process.pid, daemon.status()["started"]
    good = daemon.config.read_text()
    daemon.config.write_text(good + "[nonsense]\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "SIGHUP: not restarted" in daemon.text(), "it says what is wrong")
    assert daemon.status()["started"] == started
    daemon.config.write_text(good.replace('cluster = "test"', 'cluster = "other"'))
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.status()["started"] > started, "it runs anew")
    assert daemon.status()["cluster"] == "other"
    assert daemon.process.poll() is None and daemon.process.pid == pid
    assert daemon.stop() == 0


def test_no_daemon_is_a_clear_message(tmp_path: Path) -> None:
    done = Daemon(tmp_path).run("lbctl", "status")
    assert done.returncode == 5
    assert "is it running?" in done.stderr
