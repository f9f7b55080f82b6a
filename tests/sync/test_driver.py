"""The synchronisation driver over real UDP on loopback, with a connection table in memory behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from lbnode.epochs import Epochs
from lbnode.journal import Journal
from lbnode.model import Address, Role, VrrpState
from lbnode.sync.driver import ConnectionSync, parse_host_port

RECORD = 8


class Table:
    """A RecordSource in memory."""

    record_layout = "test"
    record_size = RECORD

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.changed: list[bytes] = []

    def put(self, connection: int, version: int) -> None:
        key, value = connection.to_bytes(4, "big"), version.to_bytes(4, "big")
        self.records[key] = value
        self.changed.append(key + value)

    async def changed_records(self, limit: int) -> bytes:
        taken, self.changed = self.changed[:limit], self.changed[limit:]
        return b"".join(taken)

    async def all_records(self) -> AsyncIterator[bytes]:
        everything = b"".join(key + value for key, value in self.records.items())
        for start in range(0, len(everything), 100 * RECORD):
            yield everything[start : start + 100 * RECORD]

    async def import_records(self, records: bytes) -> int:
        for at in range(0, len(records), RECORD):
            self.records[records[at : at + 4]] = records[at + 4 : at + 8]
        return len(records) // RECORD

    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]:
        return {"front": records}


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within 10 s: {what}")


class Pair:
    def __init__(self) -> None:
        self.ports = {"gw1": free_port(), "gw2": free_port()}
        self.tables = {"gw1": Table(), "gw2": Table()}
        self.journals = {name: Journal(name) for name in self.ports}
        self.epochs = {name: Epochs({}) for name in self.ports}
        self.syncs: dict[str, ConnectionSync] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, key: bytes = b"key") -> None:
        other = "gw2" if name == "gw1" else "gw1"
        self.syncs[name] = ConnectionSync(
            name,
            f"127.0.0.1:{self.ports[name]}",
            {other: f"127.0.0.1:{self.ports[other]}"},
            key,
            self.tables[name],
            self.journals[name],
            self.epochs[name],
        )
        self.tasks[name] = asyncio.create_task(self.syncs[name].run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def state(self, name: str) -> str:
        peers = self.syncs[name].peers.value
        return peers[0].state if peers else ""


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    for name in list(pair.tasks):
        await pair.stop(name)


async def test_changes_reach_the_peer_and_a_restarted_node_gets_all(pair: Pair) -> None:
    for connection in range(1000):
        pair.tables["gw1"].put(connection, 1)
    pair.start("gw1")
    pair.start("gw2")
    await until(lambda: pair.state("gw1") == pair.state("gw2") == "in-sync", "both in sync")
    await until(lambda: len(pair.tables["gw2"].records) == 1000, "bulk arrived")
    pair.tables["gw2"].put(5000, 1)
    await until(lambda: len(pair.tables["gw1"].records) == 1001, "a change arrived")
    await pair.stop("gw1")
    pair.tables["gw1"] = Table()
    await until(lambda: pair.state("gw2") == "silent", "silence noticed")
    pair.start("gw1")
    await until(lambda: len(pair.tables["gw1"].records) == 1001, "restarted node has everything")


async def test_a_wrong_key_is_counted_journalled_and_changes_nothing(pair: Pair) -> None:
    pair.tables["gw1"].put(1, 1)
    pair.start("gw1", key=b"another key")
    pair.start("gw2")
    await until(lambda: any(peer.bad_datagrams > 0 for peer in pair.syncs["gw2"].peers.value), "rejections counted")
    assert pair.state("gw2") == "connecting"
    assert pair.tables["gw2"].records == {}
    assert any("authentication failed" in event.why for event in pair.journals["gw2"].since(0))


def role(state: VrrpState, epoch: int = 0) -> dict[str, Role]:
    return {"front": Role("front", state, 100, 0.0, "test", epoch=epoch)}


def refusals(journal: Journal) -> list[str]:
    return [event.why for event in journal.since(0) if event.message == "records refused"]


async def test_records_of_an_older_epoch_are_refused_until_their_sender_owns_the_group_again(pair: Pair) -> None:
    now = asyncio.get_running_loop().time
    gw1, gw2 = pair.epochs["gw1"], pair.epochs["gw2"]
    gw1.take_roles(role(VrrpState.ACTIVE, 5), now())
    pair.start("gw1")
    pair.start("gw2")
    await until(lambda: pair.state("gw1") == pair.state("gw2") == "in-sync", "both in sync")
    pair.tables["gw1"].put(1, 1)
    await until(lambda: len(pair.tables["gw2"].records) == 1, "a record of epoch 5 arrived")
    gw2.take_roles(role(VrrpState.ACTIVE, 6), now())  # gw1 was paused, and does not know it yet
    for connection in (1, 2, 3):
        pair.tables["gw1"].put(connection, 2)
        await until(lambda: not pair.tables["gw1"].changed, "sent")
    await until(lambda: pair.syncs["gw2"].peers.value[0].refused_records == 3, "they are counted")
    assert pair.tables["gw2"].records == {(1).to_bytes(4, "big"): (1).to_bytes(4, "big")}
    assert refusals(pair.journals["gw2"]) == ["VIP group front: of epoch 5, the group has had epoch 6 since"]
    gw2.take_roles(role(VrrpState.BACKUP), now())
    gw1.take_roles(role(VrrpState.ACTIVE, 7), now())
    pair.tables["gw1"].put(4, 1)
    await until(lambda: pair.tables["gw2"].records == pair.tables["gw1"].records, "what was refused came in bulk")


async def test_whoever_takes_over_keeps_its_changes_until_its_epoch_is_known(pair: Pair) -> None:
    now = asyncio.get_running_loop().time
    pair.start("gw1")
    pair.start("gw2")
    await until(lambda: pair.state("gw1") == pair.state("gw2") == "in-sync", "both in sync")
    pair.epochs["gw1"].take_roles(role(VrrpState.ACTIVE), now() + 3600)  # it waits for an hour
    pair.tables["gw1"].put(1, 1)
    pair.tables["gw2"].put(2, 1)  # is not held up
    await until(lambda: len(pair.tables["gw1"].records) == 2, "a change of gw2 arrived")
    assert pair.tables["gw1"].changed and len(pair.tables["gw2"].records) == 1
    pair.epochs["gw1"].take_roles(role(VrrpState.ACTIVE, 1), now())
    await until(lambda: len(pair.tables["gw2"].records) == 2, "that of gw1, too")
    assert pair.epochs["gw2"].newest("front") == 1


async def test_garbage_from_a_stranger_is_journalled(pair: Pair) -> None:
    pair.start("gw2")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

        def sent_and_journalled() -> bool:
            stranger.sendto(b"LB garbage", ("127.0.0.1", pair.ports["gw2"]))
            return bool(pair.journals["gw2"].since(0))

        await until(sent_and_journalled, "journal entry")
    assert "unknown address" in pair.journals["gw2"].since(0)[0].why


async def test_an_address_in_use_is_named_and_waited_for(pair: Pair) -> None:
    blocker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    blocker.bind(("127.0.0.1", pair.ports["gw1"]))
    pair.start("gw1")
    await until(lambda: any("cannot listen" in event.why for event in pair.journals["gw1"].since(0)), "journal entry")
    blocker.close()
    pair.start("gw2")
    await until(lambda: pair.state("gw1") == "in-sync", "listening after all")


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_host_port(text)
