"""Reads docker-compose.yml: the part of the Compose specification that the lab can build in namespaces. Pure.

One file describes the lab for Docker and for `lbnode lab`. A key whose meaning the lab cannot honour is an error with
file:line, never ignored; keys that only matter to Docker (image, build, labels, x-...) are listed in `_DOCKER_ONLY`.
Grammar: https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import yaml

from lbnode.errors import ConfigError
from lbnode.lab.yaml_nodes import NodeReader

_NULL = "tag:yaml.org,2002:null"
_DOCKER_ONLY = ("image", "build", "labels", "pull_policy")


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    subnet: IPv4Network
    gateway: IPv4Address | None  # Docker puts this address on the host's end of the bridge


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface: which network, with which address."""

    network: str
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Mount:
    source: str  # a path as written (relative to the compose file), or the name of a volume
    target: str
    read_only: bool
    named: bool  # source is a volume's name


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port of a container, reachable on the host's loopback."""

    host_address: IPv4Address
    host_port: int
    container_port: int


@dataclass(frozen=True, slots=True)
class Healthcheck:
    argv: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    hostname: str
    command: tuple[str, ...]
    attachments: tuple[Attachment, ...]  # in Docker's order: eth0, eth1, ...
    environment: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    depends_on: Mapping[str, str] = field(default_factory=dict)  # container -> condition
    healthcheck: Healthcheck | None = None
    init: bool = False
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    containers: Mapping[str, Container]  # in start order: what others depend on comes first
    networks: Mapping[str, Network]


def parse(text: str, filename: str, environment: Mapping[str, str]) -> Project:
    """The project of one compose file; ConfigError names file:line and what is wrong or unsupported there."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{filename}:{line}: not valid YAML: {error.problem}") from error
    if root is None:
        raise ConfigError(f"{filename}:1: the file is empty; it must hold a mapping with `services`")
    return _Reader(filename, environment).project(root)


class _Reader(NodeReader):
    """The Compose model out of nodes."""

    def project(self, root: yaml.Node) -> Project:
        top = self.known(root, "compose file", "name", "services", "networks", "volumes")
        if "services" not in top or "networks" not in top:
            raise self.fail(root, "`services` and `networks` are needed")
        name = self.scalar(top["name"]) if "name" in top else "lab"
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise self.fail(top["name"], f"project name {name!r}: lower-case letters, digits, - and _ only")
        networks = {key: self.network(key, node) for key, node in self.mapping(top["networks"]).items()}
        volumes = self.mapping(top["volumes"]) if "volumes" in top else {}
        for key, node in volumes.items():
            if node.tag != _NULL:
                raise self.fail(node, f"volume {key}: the lab supports plain volumes only")
        services = self.mapping(top["services"])
        containers = {
            key: self.container(key, node, networks, frozenset(volumes), frozenset(services))
            for key, node in services.items()
        }
        self.no_duplicates(services, containers)
        return Project(name, dict(self.start_order(root, containers)), networks)

    def no_duplicates(self, nodes: Mapping[str, yaml.Node], containers: Mapping[str, Container]) -> None:
        owner: dict[str, str] = {}
        for name, container in containers.items():
            claims = [f"address {attachment.address.ip}" for attachment in container.attachments]
            claims += [f"port {port.host_address}:{port.host_port}" for port in container.ports]
            for claim in claims:
                if claim in owner:
                    raise self.fail(nodes[name], f"{name}: {claim} belongs to {owner[claim]} already")
                owner[claim] = name

    def start_order(self, root: yaml.Node, containers: Mapping[str, Container]) -> Iterator[tuple[str, Container]]:
        waiting, done = dict(containers), set[str]()
        while waiting:
            ready = [name for name, container in waiting.items() if done >= set(container.depends_on)]
            if not ready:
                raise self.fail(root, f"depends_on goes round in a circle: {', '.join(waiting)}")
            for name in ready:
                yield name, waiting.pop(name)
                done.add(name)

    def network(self, name: str, node: yaml.Node) -> Network:
        keys = self.known(node, f"network {name}", "driver", "driver_opts", "ipam", "labels")
        if "driver" in keys and self.scalar(keys["driver"]) != "bridge":
            raise self.fail(keys["driver"], f"network {name}: the lab knows driver bridge only")
        if "driver_opts" in keys:
            # Nothing masquerades in the lab, and that is what this option asks Docker for.
            option = "com.docker.network.bridge.enable_ip_masquerade"
            options = self.known(keys["driver_opts"], f"network {name}: driver_opts", option)
            if option in options and self.scalar(options[option]) != "false":
                raise self.fail(options[option], f"network {name}: the lab does not masquerade; write false")
        if "ipam" not in keys:
            raise self.fail(node, f"network {name}: `ipam: {{config: [{{subnet: ...}}]}}` is needed")
        ipam = self.known(keys["ipam"], f"network {name}: ipam", "config")
        configs = self.sequence(ipam["config"]) if "config" in ipam else []
        if len(configs) != 1:
            raise self.fail(keys["ipam"], f"network {name}: exactly one subnet is supported")
        config = self.known(configs[0], f"network {name}: ipam", "subnet", "gateway")
        if "subnet" not in config:
            raise self.fail(configs[0], f"network {name}: `subnet` is needed")
        try:
            subnet = IPv4Network(self.scalar(config["subnet"]))
            gateway = IPv4Address(self.scalar(config["gateway"])) if "gateway" in config else None
        except ValueError as error:
            raise self.fail(config["subnet"], f"network {name}: {error}") from error
        if gateway is not None and gateway not in subnet:
            raise self.fail(config["gateway"], f"network {name}: gateway {gateway} is not in {subnet}")
        return Network(name, subnet, gateway)

    def container(
        self,
        name: str,
        node: yaml.Node,
        networks: Mapping[str, Network],
        volumes: frozenset[str],
        services: frozenset[str],
    ) -> Container:
        what = f"service {name}"
        keys = self.known(
            node, what, *_DOCKER_ONLY, "command", "hostname", "networks", "environment", "sysctls", "volumes", "ports",
            "privileged", "cap_add", "depends_on", "healthcheck", "init", "stop_grace_period",
        )  # fmt: skip
        if "command" not in keys:
            raise self.fail(node, f"{what}: `command` is needed: the lab has no image to take it from")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise self.fail(node, f"{what}: letters, digits, - and _ only")
        optional = keys.get
        sysctls = self.pairs(keys["sysctls"]) if optional("sysctls") else {}
        for key in sysctls:
            if not key.startswith("net."):
                raise self.fail(keys["sysctls"], f"{what}: sysctl {key} is not of the network namespace (net.*)")
        return Container(
            name=name,
            hostname=self.scalar(keys["hostname"]) if optional("hostname") else name,
            command=self.argv(keys["command"]),
            attachments=self.attachments(what, node, optional("networks"), networks),
            environment=self.pairs(keys["environment"]) if optional("environment") else {},
            sysctls=sysctls,
            mounts=tuple(self.mount(what, item, volumes) for item in self.items(keys, "volumes")),
            ports=tuple(self.port(what, item) for item in self.items(keys, "ports")),
            privileged=self.boolean(keys["privileged"]) if optional("privileged") else False,
            cap_add=tuple(self.capability(what, item) for item in self.items(keys, "cap_add")),
            depends_on=self.dependencies(what, keys["depends_on"], services) if optional("depends_on") else {},
            healthcheck=self.healthcheck(what, keys["healthcheck"]) if optional("healthcheck") else None,
            init=self.boolean(keys["init"]) if optional("init") else False,
            stop_grace_s=self.seconds(keys["stop_grace_period"]) if optional("stop_grace_period") else 10.0,
        )

    def items(self, keys: Mapping[str, yaml.Node], key: str) -> list[yaml.Node]:
        return self.sequence(keys[key]) if key in keys else []

    def argv(self, node: yaml.Node) -> tuple[str, ...]:
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.scalar(item) for item in node.value)
        try:
            return tuple(shlex.split(self.scalar(node)))
        except ValueError as error:
            raise self.fail(node, f"command: {error}") from error

    def capability(self, what: str, node: yaml.Node) -> str:
        text = self.scalar(node).upper().removeprefix("CAP_")
        if not re.fullmatch(r"[A-Z_]+", text) or text == "ALL":
            raise self.fail(node, f"{what}: cap_add {text!r}: one capability by name is expected, such as NET_ADMIN")
        return text

    def attachments(
        self, what: str, node: yaml.Node, value: yaml.Node | None, networks: Mapping[str, Network]
    ) -> tuple[Attachment, ...]:
        """Compose connects networks in the order of their names, so eth0 is on the alphabetically first one."""
        if value is None:
            raise self.fail(node, f"{what}: `networks` with an ipv4_address each is needed")
        result = []
        for name, settings in sorted(self.mapping(value).items()):
            if name not in networks:
                raise self.fail(settings, f"{what}: network {name!r} is not defined under `networks`")
            keys = self.known(settings, f"{what}: network {name}", "ipv4_address")
            if "ipv4_address" not in keys:
                raise self.fail(settings, f"{what}: network {name}: `ipv4_address` is needed")
            network = networks[name]
            try:
                address = IPv4Address(self.scalar(keys["ipv4_address"]))
            except ValueError as error:
                raise self.fail(settings, f"{what}: network {name}: {error}") from error
            if address not in network.subnet or address == network.gateway:
                raise self.fail(settings, f"{what}: {address} is not a free address of {name} ({network.subnet})")
            result.append(Attachment(name, IPv4Interface((address, network.subnet.prefixlen))))
        return tuple(result)

    def mount(self, what: str, node: yaml.Node, volumes: frozenset[str]) -> Mount:
        parts = self.scalar(node).split(":")
        if len(parts) not in (2, 3) or not parts[1].startswith("/") or parts[2:] not in ([], ["ro"], ["rw"]):
            raise self.fail(node, f"{what}: volume {':'.join(parts)!r} is not SOURCE:/TARGET or SOURCE:/TARGET:ro")
        named = not parts[0].startswith((".", "/"))
        if named and parts[0] not in volumes:
            raise self.fail(node, f"{what}: volume {parts[0]!r} is not defined under `volumes` (a path begins with ./)")
        return Mount(parts[0], parts[1], parts[2:] == ["ro"], named)

    def port(self, what: str, node: yaml.Node) -> Port:
        text = self.scalar(node)
        match = re.fullmatch(r"(\d+\.\d+\.\d+\.\d+):(\d{1,5}):(\d{1,5})(?:/tcp)?", text)
        if match is None or not IPv4Address(match[1]).is_loopback:
            raise self.fail(
                node, f"{what}: port {text!r}: the lab publishes TCP on loopback only: 127.0.0.1:HOST:CONTAINER"
            )
        if not (0 < int(match[2]) < 65536 and 0 < int(match[3]) < 65536):
            raise self.fail(node, f"{what}: port {text!r}: ports go from 1 to 65535")
        return Port(IPv4Address(match[1]), int(match[2]), int(match[3]))

    def dependencies(self, what: str, node: yaml.Node, services: frozenset[str]) -> dict[str, str]:
        if isinstance(node, yaml.SequenceNode):
            result = {self.scalar(item): "service_started" for item in node.value}
        else:
            result = {}
            for name, settings in self.mapping(node).items():
                keys = self.known(settings, f"{what}: depends_on {name}", "condition")
                result[name] = self.scalar(keys["condition"]) if "condition" in keys else "service_started"
                if result[name] not in ("service_started", "service_healthy"):
                    raise self.fail(settings, f"{what}: depends_on {name}: condition {result[name]!r} is not supported")
        for name in result:
            if name not in services:
                raise self.fail(node, f"{what}: depends_on {name!r}, which is not a service")
        return result

    def healthcheck(self, what: str, node: yaml.Node) -> Healthcheck:
        keys = self.known(node, f"{what}: healthcheck", "test", "interval", "timeout", "retries", "start_period")
        if "test" not in keys:
            raise self.fail(node, f"{what}: healthcheck: `test` is needed")
        test = keys["test"]
        if isinstance(test, yaml.SequenceNode):
            kind, *argv = (self.scalar(item) for item in test.value)
        else:
            kind, argv = "CMD-SHELL", [self.scalar(test)]
        if kind not in ("CMD", "CMD-SHELL") or not argv or (kind == "CMD-SHELL" and len(argv) != 1):
            raise self.fail(test, f'{what}: healthcheck: test is ["CMD", ...], ["CMD-SHELL", "..."] or a string')
        default = Healthcheck(())
        return Healthcheck(
            argv=("/bin/sh", "-c", argv[0]) if kind == "CMD-SHELL" else tuple(argv),
            interval_s=self.seconds(keys["interval"]) if "interval" in keys else default.interval_s,
            timeout_s=self.seconds(keys["timeout"]) if "timeout" in keys else default.timeout_s,
            retries=self.integer(keys["retries"], 1, 1000) if "retries" in keys else default.retries,
            start_period_s=self.seconds(keys["start_period"]) if "start_period" in keys else default.start_period_s,
        )
