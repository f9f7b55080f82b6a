from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lbnode.dataplane.xdp.libbpf import LoadedObject
from tests.bench.ns_per_packet import load_wrapper
from tests.packets.bench import Bench, Machine
from tests.packets.wire import Wire


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    wire = Wire(f"lbt-pkt{os.getpid()}")
    yield wire
    wire.net.close()


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Loaded once: the kernel's verifier takes a second."""
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def second_machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def wrappers() -> Iterator[list[LoadedObject]]:
    """Of the benchmark, which repeat packets inside the kernel: one for each of two CPUs."""
    loaded = [load_wrapper() for _ in range(2)]
    yield loaded
    for one in loaded:
        one.close()


@pytest.fixture(params=["xdp", "tc"])
def entry(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(machine: Machine, wire: Wire, entry: str) -> Bench:
    """A node without services; every test runs through xdp_lb and through tc_lb."""
    return Bench(machine, wire, entry)


@pytest.fixture
def peer(second_machine: Machine, wire: Wire, entry: str) -> Bench:
    """Another node: another seed, its own tables, a clock of its own."""
    node = Bench(second_machine, wire, entry, seed=99)
    node.now_ms = 77_000
    node.advance(0)
    return node
