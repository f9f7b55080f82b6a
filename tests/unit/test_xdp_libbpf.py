"""What an error says where the kernel refuses the programs."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from lbnode.dataplane.xdp import libbpf


@pytest.mark.parametrize("release", ["5.15.0-91-generic", "6.1.0-44-amd64", "6.10.3", "7.0", "of nobody"])
def test_a_kernel_that_is_new_enough(release: str) -> None:
    assert libbpf.too_old(release) == ""


@pytest.mark.parametrize("release", ["4.19.0", "5.10.0-32-cloud-amd64", "5.14.21"])
def test_an_older_kernel_is_named_with_the_one_that_is_needed(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert libbpf.too_old(release) == f"this is Linux {release}; the balancer's programs need 5.15 or newer"
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "gw", release, "", "x86_64")))
    error = libbpf._failure("lb.bpf.o was refused by the kernel", errno.EINVAL)
    assert str(error) == f"lb.bpf.o was refused by the kernel: Invalid argument - {libbpf.too_old(release)}"


def test_helpers_that_linux_5_15_lacks_are_called_only_where_the_kernel_has_them() -> None:
    """Any other call would be as good on every kernel that tests run on. See bpf/older.h."""
    called = 0
    for path in (Path(libbpf.__file__).parent / "bpf").glob("*.[ch]"):
        text = path.read_text()
        for call in re.finditer(r"\bbpf_(loop|xdp_(load_bytes|store_bytes|get_buff_len))\(", text):
            asked = f"HAS(BPF_FUNC_{call[1]})"
            assert asked in text[call.start() - 150 : call.start()], f"{path.name}: {call[0]} without {asked}"
            called += 1
    assert called >= 4
