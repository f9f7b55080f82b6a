"""What stands in for helpers that older kernels lack (bpf/older.h) does the same, on a kernel that has them.

libbpf looks for helpers in the kernel's types: here in a copy in which they have other names. So the verifier of this
kernel sees the other ways too, and a few tests of each of them run through them.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping

import pytest

from lbnode.dataplane.xdp import libbpf
from lbnode.dataplane.xdp.syscall import prog_info
from tests.packets.bench import Machine
from tests.packets.test_inspection import test_bad_checksums_on_request
from tests.packets.test_ipv6 import test_what_is_not_looked_at_passes
from tests.packets.test_masquerade import test_tcp_both_directions
from tests.packets.test_records import test_changes_are_reported_once, test_connections_go_on_with_the_same_server
from tests.packets.test_schedulers import test_who_is_left_of_many_is_found
from tests.packets.test_syn_proxy import test_a_whole_conversation
from tests.packets.test_toa import test_a_forged_one_goes_no_further
from tests.packets.verifier import _KERNEL_TYPES

__all__ = [
    "test_a_forged_one_goes_no_further",
    "test_a_whole_conversation",
    "test_bad_checksums_on_request",
    "test_changes_are_reported_once",
    "test_connections_go_on_with_the_same_server",
    "test_tcp_both_directions",
    "test_what_is_not_looked_at_passes",
    "test_who_is_left_of_many_is_found",
]
pytestmark = pytest.mark.root
_MISSING = (b"loop", b"xdp_load_bytes", b"xdp_store_bytes", b"xdp_get_buff_len")


@pytest.fixture(scope="module")
def usual_tags() -> Mapping[str, str]:
    machine = Machine()
    try:
        return {name: prog_info(fd).tag for name, fd in machine.programs.items()}
    finally:
        machine.close()


@pytest.fixture(scope="module")
def older(usual_tags: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """libbpf opens objects for a kernel without these helpers."""
    types = _KERNEL_TYPES.read_bytes()
    for name in _MISSING:
        helper = b"\0BPF_FUNC_" + name + b"\0"
        assert helper in types, "this kernel has it"
        types = types.replace(helper, helper.upper())
    path = tmp_path_factory.mktemp("older") / "types"
    path.write_bytes(types)
    name = ctypes.create_string_buffer(bytes(path))
    # struct bpf_object_open_opts: its size, btf_custom_path
    options = ctypes.create_string_buffer(struct.pack("=Q40xQ", 56, ctypes.addressof(name)), 56)
    lib = libbpf._library()
    opens = lib.bpf_object__open_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lib, "bpf_object__open_file", lambda path, _: opens(path, options))
        yield


@pytest.fixture(scope="module")
def machine(older: None) -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()


def test_the_programs_are_not_the_usual_ones(machine: Machine, usual_tags: Mapping[str, str]) -> None:
    """Nothing of what follows would tell."""
    for name in ("xdp_lb", "tc_lb", "sweep", "take_changed", "merge"):
        assert prog_info(machine.programs[name]).tag != usual_tags[name], name
