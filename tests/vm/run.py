"""Run one command on Debian 12's own kernel, in a virtual machine (qemu, no KVM): about ten times slower than here.

    python -m tests.vm.run [--limit SECONDS] COMMAND [ARGUMENT...]

As tests.uml.run, for what User-Mode Linux cannot do: it has no BTF and no JIT, which the BPF programs take. The guest's
root directory is this machine's, by virtiofs (root is needed). LBNODE_OLDEST_KERNEL names another kernel, beside which
its package's `lib/modules` lies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tests.uml import run as uml
from tests.vm.initramfs import initramfs

KERNEL = Path(os.environ.get("LBNODE_OLDEST_KERNEL", ".build/oldest-kernel/vmlinuz"))
QEMU = "qemu-system-x86_64"
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")  # of qemu-system-common
MEMORY_MIB = 1024  # only what the guest touches is taken
_BEFORE_ROOT = ("virtio_pci", "virtiofs")  # with what they depend on: all that it takes to reach the root directory
_GUEST = Path(uml.__file__).with_name("guest.sh")


def missing() -> str:
    """What is not here, and how to get it; empty: nothing."""
    if shutil.which(QEMU) is None or not VIRTIOFSD.exists():
        return f"needs {QEMU} and virtiofsd: apt-get install qemu-system-x86"
    return "" if KERNEL.exists() else f"needs Linux 6.1 at {KERNEL}: make test-oldest-kernel"


def run(command: Sequence[str], limit_s: float, out: BinaryIO, err: BinaryIO) -> int:
    """Boot, run `command`, halt; returns its exit status, or TIMED_OUT or DIED."""
    if reason := missing():
        err.write(f"{reason}\n".encode())
        return uml.DIED
    return uml.run_in(_boot, command, limit_s, out, err)


def _boot(box: Path, log: BinaryIO) -> subprocess.Popen[bytes]:
    """qemu and its virtiofsd, which ends with it, are one process group."""
    modules = KERNEL.resolve().with_name("lib") / "modules"
    image, files = box / "initramfs", box / "files"
    image.write_bytes(initramfs({"init": _init(box), **_modules(modules)}))
    memory = f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"
    arguments = f"console=ttyS0 quiet panic=-1 lb_box={box} lb_modules={modules} lb_guest={_GUEST}"
    with_files = f"""
        {VIRTIOFSD} --socket-path={files} -o source=/ -o cache=always -o sandbox=chroot &
        until [ -S {files} ]; do sleep 0.05; done
        exec "$@"
    """
    qemu = [
        *(QEMU, "-M", "pc", "-cpu", "max", "-m", str(MEMORY_MIB), "-nographic", "-no-reboot"),
        *("-object", memory, "-numa", "node,memdev=memory"),
        *("-chardev", f"socket,id=files,path={files}", "-device", "vhost-user-fs-pci,chardev=files,tag=root"),
        *("-kernel", str(KERNEL), "-initrd", str(image), "-append", arguments),
    ]
    return subprocess.Popen(
        ["sh", "-c", with_files, "sh", *qemu], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _init(box: Path) -> bytes:
    built = box / "init"
    subprocess.run(["cc", "-static", "-Wall", "-O2", "-o", built, Path(__file__).with_name("init.c")], check=True)
    return built.read_bytes()


def _modules(directory: Path) -> dict[str, bytes]:
    """Those in the initramfs, by names that sort in the order of loading (modprobe.d(5): modules.dep)."""
    (version,) = directory.iterdir()
    needs = {}
    for line in (version / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).stem] = [*reversed(others.split()), path]
    paths = dict.fromkeys(path for name in _BEFORE_ROOT for path in needs[name])
    return {
        f"modules/{number:02}-{Path(path).name}": (version / path).read_bytes() for number, path in enumerate(paths)
    }


if __name__ == "__main__":
    sys.exit(uml.main(run, "python -m tests.vm.run", __doc__.partition("\n")[0]))
