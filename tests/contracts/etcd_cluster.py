"""A real etcd cluster on loopback: `with EtcdCluster(tmp_path, members=3) as etcd: EtcdStore(etcd.endpoints, ...)`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

READY_S = 30.0
ROOT_PASSWORD = "root-secret"


class EtcdCluster:
    """Members are numbered from 0. `tls` asks clients for a certificate; `client_cert("name")` issues one."""

    def __init__(self, directory: Path, members: int = 1, tls: bool = False) -> None:
        self.directory = directory
        self.members = members
        self.tls = tls
        self.auth = False
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._log = (directory / "etcd.log").open("ab")
        if tls:
            self._ca = trustme.CA()
            self.ca_file = str(directory / "ca.pem")
            self._ca.cert_pem.write_to_path(self.ca_file)
            self._server = self._write_cert("server", self._ca.issue_cert("127.0.0.1", "localhost"))

    def __enter__(self) -> Self:
        for attempt in range(5):  # somebody may take a free port before etcd does
            self._ports = _free_ports(2 * self.members)
            for member in range(self.members):
                self.start(member, fresh=attempt)
            try:
                self.wait_ready()
            except RuntimeError:
                self.stop_all()
                if attempt == 4:
                    raise
            else:
                return self
        raise AssertionError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        self._log.close()

    # --- addresses -------------------------------------------------------------------------------------------

    def address(self, member: int) -> str:
        """As StoreHealth.endpoint shows it."""
        return f"127.0.0.1:{self._ports[member]}"

    @property
    def endpoints(self) -> list[str]:
        return [f"{'https' if self.tls else 'http'}://{self.address(member)}" for member in range(self.members)]

    def member_at(self, address: str) -> int:
        return [self.address(member) for member in range(self.members)].index(address)

    def client_cert(self, name: str) -> tuple[str, str]:
        """(certificate file, key file) of a client with this common name."""
        return self._write_cert(name, self._ca.issue_cert(f"{name}.example", common_name=name))

    def _write_cert(self, name: str, cert: trustme.LeafCert) -> tuple[str, str]:
        cert_file, key_file = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.cert_chain_pems[0].write_to_path(str(cert_file))
        cert.private_key_pem.write_to_path(str(key_file))
        return str(cert_file), str(key_file)

    # --- members ---------------------------------------------------------------------------------------------

    def start(self, member: int, fresh: int = 0) -> None:
        peers = [f"http://127.0.0.1:{port}" for port in self._ports[self.members :]]
        command = ["etcd", "--name", f"m{member}", "--data-dir", str(self.directory / f"data{fresh}-{member}")]
        command += ["--listen-client-urls", self.endpoints[member], "--advertise-client-urls", self.endpoints[member]]
        command += ["--listen-peer-urls", peers[member], "--initial-advertise-peer-urls", peers[member]]
        command += ["--initial-cluster", ",".join(f"m{i}={url}" for i, url in enumerate(peers))]
        command += ["--initial-cluster-token", f"test{fresh}"]  # the cluster id is a hash of this and the peer URLs
        command += ["--logger", "zap", "--log-level", "warn"]
        if self.tls:
            cert_file, key_file = self._server
            command += ["--cert-file", cert_file, "--key-file", key_file]
            command += ["--client-cert-auth", "--trusted-ca-file", self.ca_file]
        self._fresh = fresh
        self._processes[member] = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def kill(self, member: int) -> None:
        """kill -9, like a power loss of that member."""
        process = self._processes.pop(member)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def restart(self, member: int) -> None:
        self.start(member, self._fresh)

    def pause(self, member: int) -> None:
        """The member hangs: its sockets stay open and nothing answers."""
        self._processes[member].send_signal(signal.SIGSTOP)

    def resume(self, member: int) -> None:
        self._processes[member].send_signal(signal.SIGCONT)

    def stop_all(self) -> None:
        for member in list(self._processes):
            self.kill(member)

    def heal(self) -> None:
        """Every member runs again."""
        for member in range(self.members):
            if member in self._processes:
                self.resume(member)
            else:
                self.restart(member)
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while (result := self._ctl("endpoint", "health")).returncode:
            if any(process.poll() is not None for process in self._processes.values()):
                raise RuntimeError(f"an etcd member died; see {self._log.name}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"etcd is not healthy after {READY_S:.0f} s: {result.stderr}")
            time.sleep(0.1)

    # --- etcdctl ---------------------------------------------------------------------------------------------

    def ctl(self, *arguments: str, endpoints: Sequence[str] = ()) -> str:
        """Output of etcdctl, as root where authentication is on; RuntimeError if it fails."""
        result = self._ctl(*arguments, endpoints=endpoints)
        if result.returncode:
            raise RuntimeError(f"etcdctl {' '.join(arguments)}: {result.stderr}")
        return result.stdout

    def _ctl(self, *arguments: str, endpoints: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        command = ["etcdctl", "--endpoints", ",".join(endpoints or self.endpoints), "--command-timeout", "10s"]
        if self.auth:
            command += ["--user", f"root:{ROOT_PASSWORD}"]
        if self.tls:
            cert_file, key_file = self._root_cert()
            command += ["--cacert", self.ca_file, "--cert", cert_file, "--key", key_file]
        environment = os.environ | {"ETCDCTL_API": "3"}
        return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)

    def _root_cert(self) -> tuple[str, str]:
        if not hasattr(self, "_root"):
            self._root = self.client_cert("root")
        return self._root

    def enable_auth(self, user: str, password: str, prefix: str) -> None:
        """Switch authentication on, with a user who may read and write below `prefix` only."""
        self.ctl("user", "add", f"root:{ROOT_PASSWORD}")
        self.ctl("role", "add", "root")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("role", "add", "lb")
        self.ctl("role", "grant-permission", "lb", "--prefix=true", "readwrite", prefix)
        self.ctl("user", "add", f"{user}:{password}")
        self.ctl("user", "grant-role", user, "lb")
        self.ctl("auth", "enable")
        self.auth = True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
