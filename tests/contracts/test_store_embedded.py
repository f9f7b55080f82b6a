"""What only the embedded store can meet: pruned history, other processes, crashes, damaged and replaced files."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.errors import StoreConflict, StoreUnavailable
from lbnode.store import sqlite_db
from lbnode.store.base import Entry, Expect
from lbnode.store.embedded import EmbeddedStore
from lbnode.store.keyspace import Keyspace
from lbnode.store.sqlite_db import Database
from tests.contracts.following import PATIENCE_S, follow, health_until, values

Open = Callable[[], EmbeddedStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest_asyncio.fixture
async def open_store(path: Path) -> AsyncIterator[Open]:
    stores: list[EmbeddedStore] = []

    def open_one() -> EmbeddedStore:
        stores.append(EmbeddedStore(path))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


keys = st.sampled_from("abcdef")
steps = st.lists(
    st.tuples(
        st.dictionaries(keys, st.sampled_from("123"), max_size=3),  # puts
        st.lists(keys, max_size=2),  # deletes
        st.dictionaries(
            keys, st.integers(0, 3), max_size=2
        ),  # guards: 0 = must not exist, 1 = its revision, else wrong
        st.booleans(),  # read the changes now
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(steps, st.integers(1, 4))
def test_the_tables_behave_like_a_dictionary_with_a_history(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[dict[str, str], list[str], dict[str, int], bool]],
    keep: int,
) -> None:
    """Transactions against a model; a reader that catches up now and then, or lists where history was pruned."""
    database = Database(tmp_path_factory.mktemp("model") / "store.db")
    model: dict[str, Entry] = {}
    revision = 1
    reader = Keyspace()
    reader.replace(*database.read_all())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_db, "KEEP_REVISIONS", keep)
        for puts, wanted_deletes, guards, read in steps:
            deletes = [key for key in wanted_deletes if key not in puts]
            present = {key: model[key].revision if key in model else 0 for key in guards}
            expect = [Expect(key, 0 if n == 0 else present[key] + n - 1) for key, n in guards.items()]
            if any(guard.revision != present[guard.key] for guard in expect):
                with pytest.raises(StoreConflict):
                    database.write(puts, deletes, expect)
            else:
                if puts or model.keys() & set(deletes):
                    revision += 1
                for key in deletes:
                    model.pop(key, None)
                model.update({key: Entry(value, revision) for key, value in puts.items()})
                assert database.write(puts, deletes, expect) == revision
            assert database.read_all() == (revision, model)
            if read:
                changes = database.changes_after(reader.revision)
                if changes is None:
                    assert revision - reader.revision > keep
                    reader.replace(*database.read_all())
                else:
                    reader.apply(changes)
                assert (reader.view().revision, reader.view().entries) == (revision, model)
    database.close()


async def test_a_reader_that_fell_behind_the_history_lists_again(
    path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_db, "KEEP_REVISIONS", 5)
    store = open_store()
    await store.txn({"goes": "1", "stays": "1"})
    async with follow(store) as follower:
        other = Database(path)  # all of it between two polls of the reader
        for step in range(30):
            other.write({"a": str(step)})
        other.write({}, ["goes"])
        assert other.changes_after(2) is None
        other.close()
        view = await follower.until_value("goes", None)
        assert values(view) == {"stays": "1", "a": "29"}


WRITER = """
import sys
from pathlib import Path
from lbnode.store.sqlite_db import Database
database = Database(Path(sys.argv[1]))
lease = database.grant(60)
database.write_leased(lease, {"nodes/gw1/role": "active"})
for step in range(1_000_000):
    database.write({key: str(step) for key in "abc"}, ["d"] if step % 2 else [], [])
    if not step % 2:
        database.write({"d": str(step)})
    print(step, flush=True)
"""


async def test_a_writer_that_is_killed_leaves_whole_transactions(path: Path, open_store: Open) -> None:
    store = open_store()
    async with follow(store) as follower:
        for _ in range(3):
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            line = b""
            while line != b"20\n":
                line = await asyncio.to_thread(process.stdout.readline)
            process.kill()
            last = process.stdout.read().split()
            process.wait()
            process.stdout.close()
            answered = int(last[-2]) if len(last) > 1 else 20  # the last line may be cut off
            view = await store.snapshot()
            assert int(view.entries["a"].value) >= answered
            await follower.until(lambda seen, want=view.revision: seen.revision == want)
            for seen in follower.views:
                assert len({seen.entries[key] for key in "abc" if key in seen.entries}) <= 1
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_keys_of_a_lease_from_before_the_boot_are_gone(path: Path, open_store: Open) -> None:
    database = Database(path)
    database.write_leased(database.grant(10_000), {"nodes/gw1/role": "active"})
    database.write({"stays": "1"})
    database.close()
    assert set(values(await open_store().snapshot())) == {"nodes/gw1/role", "stays"}
    with sqlite3.connect(path) as other:
        other.execute("UPDATE lease SET boot = 'an earlier one'")
    assert set(values(await open_store().snapshot())) == {"stays"}


async def test_a_file_that_is_no_database(path: Path, open_store: Open) -> None:
    path.write_text("certainly not a database, but long enough to be looked at" * 100)
    store = open_store()
    with pytest.raises(StoreUnavailable, match=r"store\.db: file is not a database \(put a backup in its place"):
        await store.snapshot()
    assert not store.health.value.connected
    first = asyncio.create_task(anext(store.watch()))  # type: ignore[arg-type]
    await health_until(store, lambda health: "file is not a database" in health.problem)
    path.unlink()
    async with asyncio.timeout(PATIENCE_S):
        assert values(await first) == {}
    assert store.health.value.connected


async def test_a_file_of_a_newer_release_is_not_touched(path: Path, open_store: Open) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreUnavailable, match="written by a newer release"):
        await open_store().txn({"a": "1"})


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EmbeddedStore(tmp_path / "file" / "store.db")
    with pytest.raises(StoreUnavailable, match=r"file/store\.db"):
        await store.txn({"a": "1"})
    await store.close()


async def test_a_restored_backup_is_taken_up(path: Path, tmp_path: Path, open_store: Open) -> None:
    """Another file moved to the same place has another history, whatever its revision."""
    backup = tmp_path / "backup.db"
    database = Database(backup)
    for step in range(20):
        database.write({"restored": str(step)})
    database.close()
    store = open_store()
    await store.txn({"a": "1"})
    async with follow(store) as follower:
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        shutil.move(backup, path)
        view = await follower.until_value("restored", "19")
        assert values(view) == {"restored": "19"}
        await store.txn({"b": "1"})
        await follower.until_value("b", "1")


async def test_a_database_locked_for_long_is_reported(
    path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_db, "BUSY_S", 0.1)
    store = open_store()
    await store.txn({"a": "1"})
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="database is locked"):
            await store.txn({"a": "2"})
        assert values(await store.snapshot()) == {"a": "1"}  # readers need not wait
        other.execute("ROLLBACK")
    other.close()
    await store.txn({"a": "3"})


async def test_a_closed_store_says_so(open_store: Open) -> None:
    store = open_store()
    await store.txn({"a": "1"})
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="was closed"):
        await store.snapshot()
    assert [view async for view in store.watch()] == []
