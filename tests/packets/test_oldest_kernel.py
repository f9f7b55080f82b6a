"""The objects load and run on an old kernel, in a virtual machine (qemu, no KVM).

`make test-oldest-kernel` gets the oldest one that Debian 12 has, Linux 6.1. The balancer needs 5.15:
LBNODE_OLDEST_KERNEL names the image of another kernel to try, with BTF, initramfs, serial console and the JIT compiler
built in. The verifier there refuses things that later ones take; what can be told without such a kernel is in
test_verifier.py.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lbnode.dataplane.xdp.plane import OBJECT
from tests.vm.initramfs import initramfs
from tests.vm.run import KERNEL, QEMU

LIMIT_S = 110
OBJECTS = [OBJECT, OBJECT.with_name("lease.bpf.o")]

pytestmark = [
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"needs {QEMU}: apt-get install qemu-system-x86"),
    pytest.mark.skipif(not KERNEL.exists(), reason=f"needs a kernel at {KERNEL}: make test-oldest-kernel"),
]


def test_it_takes_the_objects(tmp_path: Path) -> None:
    init, image = tmp_path / "init", tmp_path / "initramfs"
    source = Path(__file__).with_name("oldest_kernel.c")
    libraries = ["-lbpf", "-lelf", "-lz"]
    subprocess.run(["cc", "-static", "-w", "-o", init, source, *libraries], check=True, stderr=subprocess.DEVNULL)
    image.write_bytes(initramfs({one.name: one.read_bytes() for one in (init, *OBJECTS)}))
    console = subprocess.run(
        [QEMU, "-M", "pc", "-cpu", "max", "-m", "700", "-nographic", "-no-reboot", "-kernel", KERNEL, "-initrd", image,
         "-append", "console=ttyS0 quiet panic=-1"],
        capture_output=True, check=True, text=True, errors="replace", timeout=LIMIT_S, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip
    for one in ("lb.bpf.o", "lb.bpf.o capturing", "lease.bpf.o"):
        assert f"loaded /{one}: 0" in console, console[-4000:]
    for one in ("start", "sweep"):  # the timer, and a loop over the whole table
        assert console.count(f"ran {one}: 0") == 2, console[-4000:]
