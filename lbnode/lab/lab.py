"""A running lab: the topology of a compose file in namespaces, with the verbs of `docker compose` and a power switch.

    with Lab("docker-compose.yml", name="demo") as lab:
        lab.up()
        lab.run("client", ["curl", "-s", "http://192.0.2.10/"])
        lab.power_off("gw1")

Everything about it lies in /run/lbnode-lab/<name>/, so another process can go on with it (`Lab.attach`), and `down`
works after a crash too. Network namespaces are called <name>.<container>. Needs root.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lbnode.lab import compose, namespaces, processes, topology
from lbnode.lab.namespaces import CHECKOUT, NETNS, LabError
from lbnode.lab.netns import call_in_netns, ip

T = TypeVar("T")
RUN = Path("/run/lbnode-lab")
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    name: str
    state: str  # "running" | "paused" | "off"
    pid: int | None  # of its PID 1, as the host counts
    addresses: tuple[str, ...]
    health: str  # "healthy" | "unhealthy" | "" = has no health check, or is off


class Lab:
    def __init__(
        self,
        path: str | Path = CHECKOUT / "docker-compose.yml",
        *,
        name: str | None = None,
        environment: Mapping[str, str] = {},
        commands: Mapping[str, Sequence[str]] = {},
    ) -> None:
        """`name` replaces the file's project name; `environment` adds variables for `${...}` in the file;
        `commands` replaces the command of some containers and leaves out their health checks, which ask the original.
        Reading errors are ConfigError with file:line."""
        self.path = Path(path).resolve()
        project = compose.parse(self.path.read_text(), str(path), {**os.environ, **environment})
        containers = {
            key: replace(container, command=tuple(commands[key]), healthcheck=None) if key in commands else container
            for key, container in project.containers.items()
        }
        self.project = replace(project, name=name or project.name, containers=containers)
        self.run_dir = RUN / self.project.name
        self._recipe = {"path": str(self.path), "environment": dict(environment), "commands": dict(commands)}

    @classmethod
    def attach(cls, name: str) -> Self:
        """The lab of this name as it was brought up; LabError if there is none."""
        try:
            recipe = json.loads((RUN / name / "lab.json").read_text())
        except FileNotFoundError:
            raise LabError(f"no lab {name!r} is up (nothing in {RUN / name}); start it with `lbnode lab up`") from None
        return cls(recipe["path"], name=name, environment=recipe["environment"], commands=recipe["commands"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- the whole lab ----------------------------------------------------------------------------------------

    def up(self, progress: Callable[[str], None] = lambda _text: None) -> None:
        """Bring up what is not up, in the order of depends_on, and wait until all health checks pass."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes network namespaces")
        with _locked(self.project.name):
            self._prepare()
            for container in self.project.containers.values():
                for other, condition in container.depends_on.items():
                    if condition == "service_healthy":
                        self.wait_healthy(other)
                if self.pid(container.name) is None:
                    progress(f"{container.name}: {' '.join(container.command[:3])}")
                    self._start(container)
            self._publish()
        for container in self.project.containers.values():
            if container.healthcheck is not None:
                progress(f"{container.name}: waiting until healthy")
                self.wait_healthy(container.name)

    def down(self) -> None:
        remove(self.project.name)

    def status(self) -> list[ContainerStatus]:
        return [self._status(container) for container in self.project.containers.values()]

    # --- one container ----------------------------------------------------------------------------------------

    def pid(self, name: str) -> int | None:
        """Host process id of the container's PID 1; None if it is off."""
        self._container(name)
        return processes.recorded(self._place(name).pid_file)

    def address(self, name: str, network: str) -> str:
        for attachment in self._container(name).attachments:
            if attachment.network == network:
                return str(attachment.address.ip)
        raise LabError(f"{name} is not on network {network}")

    def interface(self, name: str, network: str) -> str:
        for index, attachment in enumerate(self._container(name).attachments):
            if attachment.network == network:
                return f"eth{index}"
        raise LabError(f"{name} is not on network {network}")

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside a container, for callers that start processes themselves."""
        pid = self._running(name)
        inside = topology.confine(self._container(name), tuple(argv))
        return [
            namespaces.program("nsenter"),
            "--target",
            str(pid),
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--",
            *inside,
        ]

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 60,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end. LabError with its output if it fails (`check`) or takes too long."""
        command = self.command(name, argv)
        environment = namespaces.environment(self._container(name))
        try:
            done = subprocess.run(
                command, env=environment, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{name}: {' '.join(argv)}: no end after {timeout:g} s") from error
        if check and done.returncode != 0:
            output = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise LabError(f"{name}: {' '.join(argv)}: exit {done.returncode}: {output}")
        return done

    def popen(self, name: str, argv: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a command inside; it dies with the container at the latest."""
        return subprocess.Popen(self.command(name, argv), env=namespaces.environment(self._container(name)), **kwargs)

    def call(self, name: str, function: Callable[[], T]) -> T:
        """Call a Python function in a thread inside the container's network: its sockets stay there."""
        self._container(name)
        return call_in_netns(topology.netns(self.project.name, name), function)

    def logs(self, name: str) -> str:
        """Standard output and standard error of the container's command since `up`."""
        self._container(name)
        try:
            return self._log(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def power_off(self, name: str) -> None:
        """A power cut: nothing inside gets another turn, no packet gets out any more, then everything is gone.

        The disk (/etc, /var, volumes) stays. Stopping first matters: a process that saw its first cable go could still
        say goodbye through the second one, and a kernel that closes a dead program's sockets sends FIN.
        """
        with _locked(self.project.name):
            pid = self._running(name)
            processes.signal_all(pid, signal.SIGSTOP)
            self._carrier(name, "down")
            processes.kill_all([pid])
            self._unplug(name)

    def power_on(self, name: str) -> None:
        with _locked(self.project.name):
            if self.pid(name) is not None:
                raise LabError(f"{name} is on already")
            self._start(self._container(name))

    def stop(self, name: str) -> None:
        """A clean stop, as `docker stop`: SIGTERM to the command, and after its grace period the end."""
        with _locked(self.project.name):
            pid = self._running(name)
            os.kill(pid, signal.SIGTERM)
            if not processes.wait_gone(pid, self._container(name).stop_grace_s):
                processes.kill_all([pid])
            self._unplug(name)

    def pause(self, name: str) -> None:
        """Stop every process inside; the kernel goes on forwarding and answering (a hung machine's daemon)."""
        init = self._running(name)
        processes.signal_all(init, signal.SIGSTOP)
        if not processes.wait_stopped(init, STOP_TIMEOUT_S):
            raise LabError(f"{name} has processes that do not stop within {STOP_TIMEOUT_S:g} s")

    def unpause(self, name: str) -> None:
        processes.signal_all(self._running(name), signal.SIGCONT)

    def cut(self, name: str) -> None:
        """Pull the container's cables: it sees its interfaces lose their carrier."""
        self._running(name)
        self._carrier(name, "down")

    def heal(self, name: str) -> None:
        self._running(name)
        self._carrier(name, "up")

    def healthy(self, name: str) -> bool:
        """One run of the container's health check; True for a running container without one."""
        check = self._container(name).healthcheck
        if self.pid(name) is None:
            return False
        if check is None:
            return True
        try:
            return self.run(name, check.argv, check=False, timeout=check.timeout_s).returncode == 0
        except LabError:
            return False

    def wait_healthy(self, name: str) -> None:
        """Docker's rule: `retries` failures in a row after the start period are one too many."""
        check = self._container(name).healthcheck
        if check is None:
            return
        deadline = time.monotonic() + check.start_period_s + check.retries * check.interval_s
        # Docker looks every `interval`; looking more often while starting only makes `up` faster.
        while not self.healthy(name):
            if self.pid(name) is None or time.monotonic() > deadline:
                state = "ended" if self.pid(name) is None else "does not get healthy"
                raise LabError(f"{name} {state} ({' '.join(check.argv)}); its log ends:\n{self.logs(name)[-2000:]}")
            time.sleep(min(0.1, check.interval_s))

    # --- inside -----------------------------------------------------------------------------------------------

    def _container(self, name: str) -> compose.Container:
        try:
            return self.project.containers[name]
        except KeyError:
            names = ", ".join(self.project.containers)
            raise LabError(f"no container {name!r} in {self.path.name}; there are: {names}") from None

    def _running(self, name: str) -> int:
        pid = self.pid(name)
        if pid is None:
            raise LabError(f"{name} is off; the end of its log:\n{self.logs(name)[-1000:]}")
        return pid

    def _status(self, container: compose.Container) -> ContainerStatus:
        addresses = tuple(str(attachment.address.ip) for attachment in container.attachments)
        pid = self.pid(container.name)
        if pid is None:
            return ContainerStatus(container.name, "off", None, addresses, "")
        if processes.state(pid) == "T":
            return ContainerStatus(container.name, "paused", pid, addresses, "")
        health = ""
        if container.healthcheck is not None:
            health = "healthy" if self.healthy(container.name) else "unhealthy"
        return ContainerStatus(container.name, "running", pid, addresses, health)

    def _place(self, name: str) -> namespaces.Place:
        return namespaces.Place(self.run_dir / "nodes" / name, self._log(name))

    def _log(self, name: str) -> Path:
        return self.run_dir / "logs" / f"{name}.log"

    def _prepare(self) -> None:
        """Directories and the switch; a second `up` finds them."""
        recipe = self.run_dir / "lab.json"
        if recipe.exists() and json.loads(recipe.read_text())["path"] != str(self.path):
            raise LabError(f"lab {self.project.name!r} is up from another file; `lbnode lab down` it first")
        for directory in ("nodes", "logs", "volumes"):
            (self.run_dir / directory).mkdir(parents=True, exist_ok=True)
        recipe.write_text(json.dumps(self._recipe))
        switch = topology.switch(self.project.name)
        if not (NETNS / switch).exists():
            namespaces.make_switch(self.project)

    def _start(self, container: compose.Container) -> None:
        """Plug in and switch on one container that is off."""
        self._unplug(container.name)  # of a run that ended by itself
        place = self._place(container.name)
        binds = namespaces.volumes(container, self.path.parent, self.run_dir / "volumes")
        namespaces.plug(self.project, container)
        namespaces.prepare_disk(self.project, container, place)
        namespaces.launch(self.project, container, place, binds)

    def _carrier(self, name: str, state: str) -> None:
        switch = topology.switch(self.project.name)
        namespaces.batch(switch, topology.carrier_commands(self.project, self._container(name), state))

    def _unplug(self, name: str) -> None:
        namespaces.unplug(self.project, self._container(name))
        self._place(name).pid_file.unlink(missing_ok=True)

    def _publish(self) -> None:
        """One relay process for all published ports; see publish.py."""
        pid_file = self.run_dir / "publish.pid"
        rules = [
            f"{port.host_address}:{port.host_port}={topology.netns(self.project.name, container.name)}"
            f"={container.attachments[0].address.ip}:{port.container_port}"
            for container in self.project.containers.values()
            for port in container.ports
        ]
        if not rules or processes.recorded(pid_file) is not None:
            return
        with open(self._log("publish"), "a") as log:
            relay = subprocess.Popen(
                [sys.executable, "-m", "lbnode.lab.publish", *rules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        processes.record(pid_file, relay.pid)
        assert relay.stdout is not None
        with relay.stdout as output:
            answer = output.readline().strip()
        if answer != "ready":
            relay.wait()
            reason = answer or self._log("publish").read_text()[-1000:]
            hint = f"another lab may be up; {self.path.name} says which variable chooses another port"
            raise LabError(f"ports are not published: {reason} ({hint})")


def remove(name: str) -> None:
    """Remove everything of the lab of this name, also what a crashed run left behind; its compose file may be gone."""
    run_dir = RUN / name
    with _locked(name):
        files = [run_dir / "publish.pid", *sorted(run_dir.glob("nodes/*/pid"))]
        processes.kill_all([pid for pid in map(processes.recorded, files) if pid is not None])
        for namespace in sorted(path.name for path in NETNS.glob(f"{name}.*")):
            processes.kill_all([int(pid) for pid in ip("netns", "pids", namespace).split()])
            ip("netns", "del", namespace)
        if run_dir.exists():
            shutil.rmtree(run_dir)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One change at a time per lab, across processes. The lock file goes when the lab is down."""
    path = RUN / f"{name}.lock"
    while True:
        RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = open(path, "w")  # noqa: SIM115 - closed in the `with` below
        except FileNotFoundError:
            continue  # the last lab went down just now and took the directory along
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not path.exists() or path.stat().st_ino != os.fstat(handle.fileno()).st_ino:
                continue  # its last owner removed it while we waited
            try:
                yield
            finally:
                if not (RUN / name).exists():
                    path.unlink()
                    with suppress(OSError):  # another lab is up
                        RUN.rmdir()
            return
