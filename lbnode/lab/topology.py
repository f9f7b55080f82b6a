"""What a compose project means in network namespaces: names, cables, addresses, files. Pure.

Every network is a bridge inside one switch namespace; every container is a namespace whose eth0, eth1, ... lead to
bridge ports. Docker's choices are followed where a program could see them: interface order, the bridge's own
address, MAC addresses made from the IPv4 address, the default route, /etc/hosts, capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator

from lbnode.lab.compose import Container, Project

# What a container may do without `privileged` or `cap_add`; Docker's documented default set.
# https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities
DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_IFNAMSIZ = 15  # longest interface name


def netns(project: str, name: str) -> str:
    """System-wide name of a namespace. A project's name holds no dot, so prefixes of two labs never overlap."""
    return f"{project}.{name}"


def switch(project: str) -> str:
    # A container cannot be called so: compose.py allows no leading dot.
    return netns(project, ".switch")


def bridge(project: Project, network: str) -> str:
    """The bridge carries its network's name, for tcpdump in the switch namespace; too long a name becomes a number."""
    return network if len(network) <= _IFNAMSIZ else f"bridge{list(project.networks).index(network)}"


def switch_port(project: Project, container: Container, index: int) -> str:
    """The switch's end of a container's eth<index>."""
    name = f"{container.name}.{index}"
    return name if len(name) <= _IFNAMSIZ else f"port{list(project.containers).index(container.name)}.{index}"


def mac(address: str) -> str:
    """Locally administered, from the IPv4 address, as Docker does it: the same after every power cycle."""
    return "02:42:" + ":".join(f"{int(octet):02x}" for octet in address.split("."))


def switch_commands(project: Project) -> Iterator[str]:
    """Lines for `ip -n SWITCH -batch`: the bridges, with Docker's gateway address."""
    yield "link set lo up"
    for network in project.networks.values():
        name = bridge(project, network.name)
        yield f"link add {name} type bridge"
        if network.gateway is not None:
            yield f"addr add {network.gateway}/{network.subnet.prefixlen} dev {name}"
        yield f"link set {name} up"


def cable_commands(project: Project, container: Container) -> Iterator[str]:
    """Lines for `ip -n SWITCH -batch`: a cable from a bridge port to each interface of the container."""
    for index, attachment in enumerate(container.attachments):
        port = switch_port(project, container, index)
        address = mac(str(attachment.address.ip))
        target = netns(project.name, container.name)
        yield f"link add {port} type veth peer name eth{index} address {address} netns {target}"
        yield f"link set {port} master {bridge(project, attachment.network)} up"


def interface_commands(project: Project, container: Container) -> Iterator[str]:
    """Lines for `ip -n CONTAINER -batch`: addresses and the default route through the first network's bridge."""
    yield "link set lo up"
    for index, attachment in enumerate(container.attachments):
        broadcast = attachment.address.network.broadcast_address
        yield f"addr add {attachment.address} broadcast {broadcast} dev eth{index}"
        yield f"link set eth{index} up"
    if container.attachments:
        gateway = project.networks[container.attachments[0].network].gateway
        if gateway is not None:
            yield f"route add default via {gateway} dev eth0"


def carrier_commands(project: Project, container: Container, state: str) -> Iterator[str]:
    """Lines for `ip -n SWITCH -batch`: pull (`down`) or plug in (`up`) all cables of a container."""
    for index in range(len(container.attachments)):
        yield f"link set {switch_port(project, container, index)} {state}"


def hosts(project: Project, container: Container) -> str:
    """/etc/hosts: every container by name, on the networks shared with this one, as Docker's resolver answers."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    own = {attachment.network for attachment in container.attachments}
    for other in project.containers.values():
        names = " ".join(dict.fromkeys((other.name, other.hostname)))
        lines += [f"{attached.address.ip} {names}" for attached in other.attachments if attached.network in own]
    return "\n".join(lines) + "\n"


def confine(container: Container, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command with the capabilities that Docker would leave it: setpriv(1) drops the others for good."""
    if container.privileged:
        return argv
    allowed = sorted({*DEFAULT_CAPABILITIES, *container.cap_add})
    dropped = "-all," + ",".join(f"+{name.lower()}" for name in allowed)
    return ("setpriv", "--bounding-set", dropped, "--inh-caps=-all", "--", *argv)
