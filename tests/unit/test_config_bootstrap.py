"""node.toml: every problem with file and line; secrets from files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lbnode.lab
from lbnode.config.bootstrap import NodeConfig, load_node_config, parse_node_config
from lbnode.errors import ConfigError


def parse(text: str) -> NodeConfig:
    return parse_node_config(text, "node.toml", lambda name: f"content of {name}")


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_an_empty_file_is_a_single_node_with_the_embedded_store() -> None:
    config = parse("")
    assert config.store.etcd == ()
    assert config.web.listen == "127.0.0.1:8080"
    assert config.web.token is None
    assert config.sync.listen == ""
    assert config == NodeConfig()


@pytest.mark.parametrize("name", ["gw1", "gw2"])
def test_the_labs_files_load(name: str) -> None:
    config = load_node_config(Path(lbnode.lab.__file__).parent / f"{name}.toml")
    assert config.node == name
    assert len(config.store.etcd) == 3


def test_secrets_come_from_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "node.toml").write_text(
        '[store]\netcd = ["https://192.0.2.1:2379"]\nuser = "lb"\npassword_file = "pw"\n'
    )
    config = load_node_config(tmp_path / "node.toml")
    assert config.store.password == "s3cret"
    assert "s3cret" not in repr(config)
    (tmp_path / "pw").unlink()
    with pytest.raises(ConfigError, match=r"node\.toml:4: store\.password_file: 'pw' cannot be read"):
        load_node_config(tmp_path / "node.toml")


def test_every_problem_with_its_line() -> None:
    text = """\
cluster = "a b"
nod = "gw1"
[store]
etcd = ["198.51.100.11:2379"]
[web]
listen = "localhost"
[sync]
listne = "198.51.100.2:8848"
[sync.peers]
gw2 = "198.51.100.3"
[dataplane]
kind = "ebpf"
connections = "many"
"""
    lines = problems(text).splitlines()
    expected = [
        ("node.toml:1: cluster", "'a b'"),
        ("node.toml:2: nod", 'did you mean "node"?'),
        ("node.toml:4: store.etcd[0]", "http://"),
        ("node.toml:6: web.listen", "localhost"),
        ("node.toml:8: sync.listne", 'did you mean "listen"?'),
        ("node.toml:10: sync.peers.gw2", "HOST:PORT"),
        ("node.toml:12: dataplane.kind", "auto, xdp, ipvs, fake"),
        ("node.toml:13: dataplane.connections", "whole number"),
    ]
    assert len(lines) == len(expected)
    for line, (where, what) in zip(lines, expected, strict=True):
        assert line.startswith(where) and what in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = = 1", "node.toml:1:5: not valid TOML"),
        ("a = ", "node.toml:1: not valid TOML"),
        ('[sync]\nlisten = "192.0.2.1:1"', "node.toml:2: sync.listen: connection synchronisation needs a key"),
        ('[sync]\nkey = "k"\npeers = { b = "192.0.2.1:1" }', "peers without listen"),
        ('node = "a"\n[sync]\nkey = "k"\nlisten = "192.0.2.1:1"\npeers = { a = "192.0.2.1:1" }', "this node itself"),
        ('[web]\ntoken = "a"\ntoken_file = "b"', "token and token_file are both set"),
        ('[store]\netcd = ["http://a:1"]\nuser = "u"', "user and password belong together"),
        ('[store]\netcd = ["http://a:1"]\ncert_file = "c"', "cert_file and key_file belong together"),
        ('[store]\nuser = "u"\npassword = "p"', "there is no etcd"),
        ("[dataplane]\nconnections = 4095", "node.toml:2: dataplane.connections: 4095 is out of range: at least 4096"),
        (
            "[dataplane]\nconnections = 16777217",
            "node.toml:2: dataplane.connections: 16777217 is out of range: at most 16777216",
        ),
    ],
)
def test_rules_between_fields(text: str, message: str) -> None:
    assert message in problems(text)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; write one"):
        load_node_config(tmp_path / "absent.toml")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="[]{}=\"'.,\n #abdeilnopstw019", max_size=60) | st.text(max_size=30))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert str(error).startswith("node.toml")
