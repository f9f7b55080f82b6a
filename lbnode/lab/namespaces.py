"""Builds what topology.py describes: switch, cables, disks; starts containers. The doing half, without memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbnode.errors import LbError
from lbnode.lab import topology
from lbnode.lab.compose import Container, Project
from lbnode.lab.netns import ip

NETNS = Path("/run/netns")
CHECKOUT = Path(__file__).resolve().parent.parent.parent
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Bind = tuple[str, str, bool]  # source on the host, target in the container, read-only


class LabError(LbError):
    """The lab could not do what was asked; says which container and what it saw."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one container keeps its things on the host."""

    directory: Path
    log: Path

    @property
    def pid_file(self) -> Path:
        return self.directory / "pid"

    @property
    def disk(self) -> Path:
        return self.directory / "disk"


def program(name: str) -> str:
    path = shutil.which(name, path=_SYSTEM_PATH)
    if path is None:
        raise LabError(f"program {name} is missing (Debian: util-linux, iproute2)")
    return path


def batch(namespace: str, lines: Iterable[str]) -> None:
    """Run many ip(8) commands in one process inside a namespace."""
    text = "\n".join(lines) + "\n"
    command = ["ip", "-n", namespace, "-batch", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}; it was given:\n{text}")


def make_switch(project: Project) -> None:
    ip("netns", "add", topology.switch(project.name))
    batch(topology.switch(project.name), topology.switch_commands(project))


def plug(project: Project, container: Container) -> None:
    """Make the container's network namespace and its cables to the switch."""
    namespace = topology.netns(project.name, container.name)
    ip("netns", "add", namespace)
    # As in Docker: a network without an IPv6 subnet has no IPv6 at all.
    ip("netns", "exec", namespace, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    batch(topology.switch(project.name), topology.cable_commands(project, container))
    batch(namespace, topology.interface_commands(project, container))


def unplug(project: Project, container: Container) -> None:
    """Remove namespace and cables. The cables by name: after `ip netns del` alone the kernel takes its time."""
    namespace, switch = topology.netns(project.name, container.name), topology.switch(project.name)
    if not (NETNS / namespace).exists():
        return
    present = {link["ifname"] for link in json.loads(ip("-n", switch, "-json", "link", "show"))}
    ports = [topology.switch_port(project, container, index) for index in range(len(container.attachments))]
    batch(switch, [f"link del {port}" for port in ports if port in present])
    ip("netns", "del", namespace)


def prepare_disk(project: Project, container: Container, place: Place) -> None:
    """/etc is a copy of the host's, /var begins empty; both outlive a power cut."""
    (place.directory / "root").mkdir(parents=True, exist_ok=True)
    etc, var = place.disk / "etc", place.disk / "var"
    if not var.exists():
        shutil.copytree("/etc", etc, symlinks=True, dirs_exist_ok=True)
        for name in ("lib", "log", "cache", "tmp"):
            (var / name).mkdir(parents=True)
        (var / "tmp").chmod(0o1777)
        (var / "run").symlink_to("/run")
    files = {
        "hosts": topology.hosts(project, container),
        "hostname": container.hostname + "\n",
        "resolv.conf": "# the lab has no name server; see /etc/hosts\n",
    }
    for name, text in files.items():
        (etc / name).unlink(missing_ok=True)
        (etc / name).write_text(text)


def volumes(container: Container, base: Path, named: Path) -> list[Bind]:
    """The container's mounts; named volumes are directories below `named`, paths are relative to `base`."""
    binds = []
    for mount in container.mounts:
        source = named / mount.source if mount.named else base / mount.source
        if mount.named:
            source.mkdir(exist_ok=True)
        elif not source.exists():
            raise LabError(f"{container.name}: {source} does not exist, but is to be mounted at {mount.target}")
        binds.append((str(source), mount.target, mount.read_only))
    return binds


def environment(container: Container) -> dict[str, str]:
    """Like an image's: nothing of the caller's environment leaks in; programs come from this checkout's venv."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": "/root",
        "HOSTNAME": container.hostname,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "TERM": os.environ.get("TERM", "dumb"),
        **container.environment,
    }


def launch(project: Project, container: Container, place: Place, binds: Sequence[Bind]) -> None:
    """Start the container's PID 1 (init.py), which writes its process id to `place.pid_file`."""
    if shutil.which(container.command[0], path=environment(container)["PATH"]) is None:
        raise LabError(f"{container.name} does not start: no program {container.command[0]!r} on its PATH")
    # The checkout and its Python, where the container would otherwise see its own /tmp, /var, ...
    hidden = ("/tmp/", "/run/", "/var/", "/etc/")  # noqa: S108
    programs = [
        (path, path, True) for path in sorted({str(CHECKOUT), sys.prefix, sys.base_prefix}) if path.startswith(hidden)
    ]
    spec = {
        "netns": topology.netns(project.name, container.name),
        "hostname": container.hostname,
        "argv": topology.confine(container, container.command),
        "env": environment(container),
        "sysctls": dict(container.sysctls),
        "privileged": container.privileged,
        "init": container.init,
        "binds": [*programs, *binds],
        "root": str(place.directory / "root"),
        "disk": str(place.disk),
        "log": str(place.log),
        "pid_file": str(place.pid_file),
    }
    path = place.directory / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-I", str(Path(__file__).with_name("init.py")), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode != 0:
        raise LabError(f"{container.name} does not start: {done.stderr.strip()}")
