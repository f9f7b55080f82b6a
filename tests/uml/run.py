"""Run one command inside a User-Mode Linux kernel, which has ip_vs where this machine's kernel has none.

    python -m tests.uml.run [--limit SECONDS] COMMAND [ARGUMENT...]

The command finds the same files, directory and environment as here, and is root in its own kernel (root is not needed
here). What it writes goes to an overlay in the guest's memory and is lost; its output comes out as it is written, and
its exit status is passed on. Status 124: the time limit was reached. 125: the guest did not start, or it died.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Self

TIMED_OUT, DIED = 124, 125
PACKAGE = "user-mode-linux"
MODULES = Path(os.environ.get("UML_MODULES", "/usr/lib/uml/modules"))
MEMORY_MIB = 768  # a sparse file: only what the guest touches is taken
_POLL_S = 0.05


def kernel() -> str | None:
    """The UML kernel's path, or None if the package is not installed."""
    path = os.environ.get("UML_LINUX") or shutil.which("linux")
    return path if path and MODULES.is_dir() else None


def run(command: Sequence[str], limit_s: float, out: BinaryIO, err: BinaryIO) -> int:
    """Boot, run `command`, halt; returns its exit status, or TIMED_OUT or DIED."""
    linux = kernel()
    if linux is None:
        err.write(f"no User-Mode Linux here: apt-get install {PACKAGE}\n".encode())
        return DIED
    return run_in(lambda box, log: _boot(linux, box, log), command, limit_s, out, err)


def run_in(
    boot: Callable[[Path, BinaryIO], subprocess.Popen[bytes]],
    command: Sequence[str],
    limit_s: float,
    out: BinaryIO,
    err: BinaryIO,
) -> int:
    """The same in any guest that finds this machine's files and ends when it is through.

    boot: starts it, in a process group of its own, with guest.sh as its first program and `lb_box` and `lb_modules` in
    its environment (guest.sh), and writes its console to the file.
    """
    with tempfile.TemporaryDirectory(prefix="lbt-uml", dir="/var/tmp") as name:
        box = Path(name)
        (box / "command").write_text(_script(command))
        console = box / "console"
        with _Follower(box / "out", out) as output, _Follower(box / "err", err) as errors, console.open("wb") as log:
            guest = boot(box, log)
            try:
                deadline = time.monotonic() + limit_s
                while guest.poll() is None and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                    output.copy()
                    errors.copy()
                timed_out = guest.poll() is None
            finally:
                _kill(guest)
        if (box / "status").exists():
            return int((box / "status").read_text())
        if timed_out:
            err.write(f"the time limit of {limit_s:g} s was reached\n".encode())
            return TIMED_OUT
        err.write(b"the guest died; the end of its console:\n" + console.read_bytes()[-3000:] + b"\n")
        return DIED


def _script(command: Sequence[str]) -> str:
    variables = (f"export {key}={shlex.quote(value)}" for key, value in os.environ.items() if key.isidentifier())
    return "\n".join((*variables, f"cd {shlex.quote(os.getcwd())}", f"exec {shlex.join(command)}", ""))


def _boot(linux: str, box: Path, log: BinaryIO) -> subprocess.Popen[bytes]:
    room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    memory_dir = "/dev/shm" if room > 2 * MEMORY_MIB << 20 else "/var/tmp"  # a container's 64 MB end in SIGBUS
    arguments = [
        *(linux, f"mem={MEMORY_MIB}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"),
        *("con=null", "con0=null,fd:1", "panic=-1", "oops=panic", "noreboot"),  # a panic ends the process, not hangs it
        *(f"umid={box.name}", f"uml_dir={box}", f"init={Path(__file__).with_name('guest.sh')}"),
        *(f"lb_box={box}", f"lb_modules={MODULES}"),
    ]
    environment = {**os.environ, "TMPDIR": memory_dir, **_for_amx(box)}
    return subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
    )


def _for_amx(box: Path) -> dict[str, str]:
    """What makes the kernel run on a processor with AMX: ptrace.c says why. Takes Debian's clang."""
    if " amx_tile" not in Path("/proc/cpuinfo").read_text():
        return {}
    library = box / "ptrace.so"
    flags = ("-O2", "-ffreestanding", "-fPIC", "-shared", "-nostdlib")
    subprocess.run(["clang", *flags, "-o", library, Path(__file__).with_name("ptrace.c")], check=True)
    return {"LD_PRELOAD": str(library)}


def _kill(guest: subprocess.Popen[bytes]) -> None:
    """The whole group: a guest's processes are processes here, and outlive a crashed kernel."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
    guest.wait()


class _Follower:
    """Copies what the guest appends to a file."""

    def __init__(self, path: Path, sink: BinaryIO) -> None:
        path.touch()
        self._file = path.open("rb", buffering=0)
        self._sink = sink

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.copy()
        self._file.close()

    def copy(self) -> None:
        while data := self._file.read(1 << 16):
            self._sink.write(data)
        self._sink.flush()


def main(run: Callable[[Sequence[str], float, BinaryIO, BinaryIO], int], program: str, description: str) -> int:
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds, boot included (default %(default)g)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    return run(arguments.command, arguments.limit, sys.stdout.buffer, sys.stderr.buffer)


if __name__ == "__main__":
    sys.exit(main(run, "python -m tests.uml.run", __doc__.partition("\n")[0]))
