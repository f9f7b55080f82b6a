"""Reading docker-compose.yml: values, merges, interpolation, and errors that name the line."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import ConfigError
from lbnode.lab import topology
from lbnode.lab.compose import Project, parse
from lbnode.lab.yaml_nodes import duration, interpolate

SHIPPED = Path(__file__).resolve().parents[2] / "docker-compose.yml"
SMALL = """\
name: small
networks:
  front: {ipam: {config: [{subnet: 192.0.2.0/24, gateway: 192.0.2.254}]}}
services:
  one:
    command: sleep infinity
    networks: {front: {ipv4_address: 192.0.2.1}}
"""


def shipped() -> Project:
    return parse(SHIPPED.read_text(), "docker-compose.yml", {})


def with_key(text: str) -> str:
    """The small file with one more key in service `one`; it begins on line 8."""
    return SMALL + "    " + text.replace("\n", "\n    ") + "\n"


def test_the_shipped_file() -> None:
    project = shipped()
    assert project.name == "lbnode-lab"
    order = list(project.containers)
    assert order.index("etcd3") < order.index("gw1")
    gateway = project.containers["gw1"]
    assert gateway.privileged and gateway.init and gateway.stop_grace_s == 2  # merged in from x-gateway, x-image
    assert gateway.command == ("lbnoded", "--config", "/etc/lbnode/node.toml")
    assert [attachment.network for attachment in gateway.attachments] == ["back", "front"]  # as Docker connects them
    assert gateway.sysctls["net.ipv4.ip_forward"] == "1"
    assert [(mount.target, mount.read_only) for mount in gateway.mounts] == [("/etc/lbnode/node.toml", True)]
    assert (str(gateway.ports[0].host_address), gateway.ports[0].host_port) == ("127.0.0.1", 8080)
    etcd = project.containers["etcd2"]
    assert etcd.command[:3] == ("etcd", "--name", "etcd2") and "http://198.51.100.12:2379" in etcd.command
    assert etcd.healthcheck is not None and etcd.healthcheck.argv == ("etcdctl", "endpoint", "health")
    assert etcd.healthcheck.retries == 15
    assert project.containers["client"].cap_add == ("NET_ADMIN", "NET_RAW")


def test_variables_reach_the_file() -> None:
    project = parse(SHIPPED.read_text(), "f", {"LBNODE_GW1_PORT": "18080"})
    assert project.containers["gw1"].ports[0].host_port == 18080


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "a"),
        ("${A}", "a"),
        ("${A:-x}", "a"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${NONE-x}", "x"),
        ("${NONE}", ""),
        ("$$A", "$A"),
        ("a$${A}b", "a${A}b"),
        ("${NONE:-http://x:1}", "http://x:1"),
    ],
)
def test_interpolation(text: str, result: str) -> None:
    assert interpolate(text, {"A": "a", "EMPTY": ""}) == result


@pytest.mark.parametrize("text", ["${NONE:?say so}", "${A!}", "$1", "${", "$"])
def test_interpolation_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"say so|is not a variable"):
        interpolate(text, {"A": "a"})


@given(st.text(alphabet="abc {}:-._", max_size=30))
def test_text_without_dollar_stays(text: str) -> None:
    assert interpolate(text, {}) == text
    assert interpolate(text.replace("$", "$$") + "$$", {}) == text + "$"


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("1.5s", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "s", "2 s", "-1s", "2sx"])
def test_durations_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (with_key("restart: always"), 8, "does not support 'restart'"),
        (with_key("network_mode: host"), 8, "does not support 'network_mode'"),
        (with_key("privileged: yes please"), 8, "expected true or false"),
        (with_key('ports: ["8080:80"]'), 8, "loopback only"),
        (with_key('ports: ["127.0.0.1:99999:80"]'), 8, "from 1 to 65535"),
        (with_key("sysctls: {kernel.shmmax: 1}"), 8, "kernel.shmmax is not of the network namespace"),
        (with_key('volumes: ["data:/data"]'), 8, "not defined under `volumes`"),
        (with_key('volumes: ["./x"]'), 8, "is not SOURCE:/TARGET"),
        (with_key("depends_on: [two]"), 8, "'two', which is not a service"),
        (with_key("depends_on: [one]"), 1, "circle: one"),
        (with_key("stop_grace_period: 2"), 8, "'2' is not a duration"),
        (with_key("cap_add: [ALL]"), 8, "one capability by name"),
        (with_key("healthcheck: {test: [RUN, x]}"), 8, r'test is \["CMD"'),
        (with_key("healthcheck:\n  test: true\n  retries: many"), 10, "expected a number from 1 to 1000"),
        (with_key("command: sleep 1"), 8, "written twice"),
        (SMALL.replace("192.0.2.1}", "198.51.100.1}"), 7, "198.51.100.1 is not a free address of front"),
        (SMALL.replace("192.0.2.1}", "192.0.2.254}"), 7, "192.0.2.254 is not a free address"),
        (SMALL.replace("{ipv4_address: 192.0.2.1}", "{}"), 7, "`ipv4_address` is needed"),
        (SMALL.replace("{front: {ipv4", "{back: {ipv4"), 7, "network 'back' is not defined"),
        (SMALL.replace("    command: sleep infinity\n", ""), 6, "`command` is needed"),
        (SMALL.replace("command: sleep infinity", 'command: "sleep \'"'), 6, "No closing quotation"),
        (SMALL.replace("gateway: 192.0.2.254", "gateway: 198.51.100.9"), 3, "gateway 198.51.100.9 is not in"),
        (SMALL.replace("{ipam:", "{driver: macvlan, ipam:"), 3, "driver bridge only"),
        (SMALL.replace("{ipam:", "{internal: true, ipam:"), 3, "does not support 'internal'"),
        (SMALL.replace("name: small", "name: Big Lab"), 1, "project name 'Big Lab'"),
        (SMALL.replace("services:", "secrets: {}\nservices:"), 4, "does not support 'secrets'"),
        (SMALL.replace("sleep infinity", "$1"), 6, "is not a variable Compose knows"),
        (SMALL + "  two: [", 8, "not valid YAML"),
        ("", 1, "empty"),
        ("a list", 1, "expected a mapping"),
    ],
)
def test_errors_name_file_line_and_reason(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "lab.yml", {})
    assert str(caught.value).startswith(f"lab.yml:{line}:")


def test_duplicate_address_names_both_owners() -> None:
    twice = SMALL + "  two: {command: sleep 1, networks: {front: {ipv4_address: 192.0.2.1}}}\n"
    with pytest.raises(ConfigError, match=r"two: address 192.0.2.1 belongs to one already"):
        parse(twice, "lab.yml", {})


def test_the_nearer_value_wins_in_a_merge() -> None:
    text = (
        SMALL
        + "    <<: [{privileged: true, stop_grace_period: 1s}, {stop_grace_period: 9s, init: true}]\n    init: false\n"
    )
    container = parse(text, "lab.yml", {}).containers["one"]
    assert (container.privileged, container.stop_grace_s, container.init) == (True, 1, False)


def test_dependencies_come_first_in_start_order() -> None:
    text = SMALL.replace("    command", "    depends_on: {two: {condition: service_healthy}}\n    command")
    text += "  two: {command: sleep 1, networks: {front: {ipv4_address: 192.0.2.2}}}\n"
    project = parse(text, "lab.yml", {})
    assert list(project.containers) == ["two", "one"]
    assert project.containers["one"].depends_on == {"two": "service_healthy"}


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef")), min_size=1))
def test_start_order_honours_every_dependency_or_says_circle(graph: dict[str, set[str]]) -> None:
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    text = SMALL[: SMALL.index("  one:")]
    for number, (name, others) in enumerate(graph.items()):
        needs = ", ".join(sorted(others))
        networks = f"{{front: {{ipv4_address: 192.0.2.{number + 1}}}}}"
        text += f"  {name}: {{command: x, networks: {networks}, depends_on: [{needs}]}}\n"
    try:
        order = list(parse(text, "lab.yml", {}).containers)
    except ConfigError as error:
        assert "circle" in str(error)
        return
    assert sorted(order) == sorted(graph)
    assert all(order.index(other) < order.index(name) for name, others in graph.items() for other in others)


def test_topology_of_the_shipped_file() -> None:
    project = shipped()
    gateway = project.containers["gw1"]
    assert list(topology.switch_commands(project))[1:4] == [
        "link add front type bridge",
        "addr add 192.0.2.254/24 dev front",
        "link set front up",
    ]
    assert list(topology.cable_commands(project, gateway)) == [
        "link add gw1.0 type veth peer name eth0 address 02:42:c6:33:64:02 netns lbnode-lab.gw1",
        "link set gw1.0 master back up",
        "link add gw1.1 type veth peer name eth1 address 02:42:c0:00:02:02 netns lbnode-lab.gw1",
        "link set gw1.1 master front up",
    ]
    assert "route add default via 198.51.100.254 dev eth0" in list(topology.interface_commands(project, gateway))
    assert gateway.attachments[1].address == IPv4Interface("192.0.2.2/24")


def test_hosts_shows_shared_networks_only() -> None:
    project = shipped()
    client = topology.hosts(project, project.containers["client"])
    assert "192.0.2.2 gw1" in client and "198.51.100" not in client
    gateway = topology.hosts(project, project.containers["gw2"])
    assert "198.51.100.31 rs1" in gateway and "192.0.2.100 client" in gateway


def test_interface_names_fit_the_kernel() -> None:
    text = SMALL.replace("  one:", "  a-very-long-container-name:").replace("front", "a-network-with-a-long-name")
    project = parse(text, "lab.yml", {})
    container = project.containers["a-very-long-container-name"]
    names = [topology.switch_port(project, container, 0), topology.bridge(project, "a-network-with-a-long-name")]
    assert names == ["port0.0", "bridge0"]


def test_capabilities_follow_privileged_and_cap_add() -> None:
    project = shipped()
    assert topology.confine(project.containers["gw1"], ("x",)) == ("x",)
    confined = topology.confine(project.containers["client"], ("x", "y"))
    assert confined[0] == "setpriv" and confined[-3:] == ("--", "x", "y")
    assert "+net_admin" in confined[2] and "+sys_admin" not in confined[2] and confined[2].startswith("-all,")
