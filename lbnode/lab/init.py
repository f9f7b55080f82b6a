"""PID 1 of a lab container: private root, mounts and process table around one command. Standard library only.

    python init.py SPEC.json      prints the process id of the container's PID 1 once the container stands

The container sees the host's programs read-only; /etc and /var are its own directories ("its disk", they outlive a
power cut), /run and /tmp are fresh each time ("its memory"). The kernel kills everything in a PID namespace
when its PID 1 dies (pid_namespaces(7)), so one SIGKILL is a power cut.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

# sched.h, sys/mount.h, linux/mount.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
SYS_PIVOT_ROOT = {"x86_64": 155}.get(os.uname().machine, 41)  # 41: the generic table (arm64, riscv)
SYS_MOUNT_SETATTR = 442  # the same number on every architecture
# Not taken from the host: kernel file systems, and what every container has for itself.
_OWN = ("proc", "sys", "dev", "run", "tmp", "etc", "var", "lost+found")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


def mount(source: str, target: Path, fstype: str = "", flags: int = 0, data: str = "") -> None:
    target_bytes = os.fsencode(target)
    result = _libc.mount(source.encode(), target_bytes, fstype.encode() or None, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {fstype or source} on {target}")


def bind(source: str, target: Path, *, read_only: bool) -> None:
    """The tree at `source` also at `target`, with everything mounted below it."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)  # struct mount_attr
        flags = ctypes.c_uint(AT_RECURSIVE)
        result = _libc.syscall(
            SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), flags, attributes, ctypes.c_size_t(len(attributes))
        )
        _check(result, f"make {target} read-only")


def bind_into(root: Path, source: str, target: str, *, read_only: bool) -> None:
    """Bind a file or directory to a path inside the new root, making the mount point."""
    place = root / target.lstrip("/")
    if os.path.isdir(source):
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    bind(source, place, read_only=read_only)


def build_root(spec: dict[str, Any]) -> None:
    """Assemble the container's root directory at spec["root"]; runs inside the new mount namespace."""
    root, disk = Path(spec["root"]), Path(spec["disk"])
    mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)  # nothing below is seen outside
    mount("tmpfs", root, "tmpfs", data="mode=755")
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        if entry.is_symlink():
            (root / entry.name).symlink_to(os.readlink(entry.path))
        elif entry.is_dir() and entry.name not in _OWN:
            bind_into(root, entry.path, entry.path, read_only=True)
    for name in ("etc", "var"):
        bind_into(root, str(disk / name), name, read_only=False)
    for name, mode in (("run", "755"), ("tmp", "1777"), ("proc", ""), ("sys", ""), ("dev", "")):
        (root / name).mkdir()
        if mode:
            mount("tmpfs", root / name, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    (root / "run/lock").mkdir()
    bind("/dev", root / "dev", read_only=False)
    mount("tmpfs", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    # A fresh sysfs and procfs show this network namespace's interfaces and this PID namespace's processes.
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for key, value in spec["sysctls"].items():
        (root / "proc/sys" / key.replace(".", "/")).write_text(value)
    if not spec["privileged"]:  # as Docker: a container without `privileged` cannot write sysctls
        bind(str(root / "proc/sys"), root / "proc/sys", read_only=True)
    for source, target, read_only in spec["binds"]:
        bind_into(root, source, target, read_only=read_only)
    os.chdir(root)
    _check(_libc.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")  # pivot_root(2), "pivot_root(".", ".")"
    _check(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def start(spec: dict[str, Any]) -> int:
    """Start the container's command; its process id. Without `init: true` the command itself becomes PID 1."""
    argv = spec["argv"]
    default = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these, and a program would inherit that
    if spec["init"]:
        return os.posix_spawnp(argv[0], argv, spec["env"], setsid=True, setsigdef=default)
    for number in default:
        signal.signal(number, signal.SIG_DFL)
    return os.execvpe(argv[0], argv, spec["env"])  # noqa: S606 - there is no shell, on purpose


def reap_until_end(child: int) -> int:
    """Pass signals on to the command, reap orphans, end with it: what Docker's `init: true` does."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def be_container(spec: dict[str, Any], done: int) -> int:
    """PID 1's life. `done` takes a traceback if the container cannot be built; its end says that it stands."""
    try:
        os.setsid()
        _check(_libc.sethostname(spec["hostname"].encode(), len(spec["hostname"])), "set the host name")
        log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        build_root(spec)
        for number, source in enumerate((os.open("/dev/null", os.O_RDONLY), log, log)):
            os.dup2(source, number)
        os.environ["PATH"] = spec["env"]["PATH"]  # where execvpe and posix_spawnp look
        child = start(spec)
    except BaseException:  # noqa: BLE001 - goes to the launcher, whole
        os.write(done, traceback.format_exc().encode())
        return 1
    os.closerange(3, 256)
    return reap_until_end(child)


def main() -> int:
    spec = json.loads(Path(sys.argv[1]).read_text())
    with open(f"/run/netns/{spec['netns']}", "rb") as handle:
        _check(_libc.setns(handle.fileno(), CLONE_NEWNET), f"enter network namespace {spec['netns']}")
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID), "make namespaces")
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.close(done_read)
        if not os.read(go_read, 1):
            return 1  # the launcher died before it had written down our process id
        os.close(go_read)
        return be_container(spec, done_write)
    os.close(done_write)
    stat = Path(f"/proc/{pid}/stat").read_text()
    Path(spec["pid_file"]).write_text(f"{pid} {stat.rpartition(')')[2].split()[19]}\n")  # starttime, proc(5)
    os.write(go_write, b"g")
    if problem := os.read(done_read, 65536):
        sys.stderr.write(problem.decode())
        os.waitpid(pid, 0)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
