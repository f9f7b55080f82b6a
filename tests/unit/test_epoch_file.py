"""The epochs of VIP groups on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.epoch_file import EpochFile, _parse
from lbnode.epochs import Epochs, Kept
from lbnode.journal import Journal

u64 = st.integers(0, 2**64 - 1)


@given(st.dictionaries(st.text(max_size=63), st.builds(Kept, u64, u64), max_size=5))
def test_what_is_written_is_read(groups: dict[str, Kept]) -> None:
    assert _parse(json.dumps(groups)) == groups


def test_a_file_is_replaced_as_a_whole_and_belongs_to_its_owner(tmp_path: Path) -> None:
    file = EpochFile(tmp_path / "state" / "epochs.json")
    assert file.load() == {}
    for newest in (1, 2):
        file.save({"front": Kept(newest, 1)})
        assert file.load() == {"front": Kept(newest, 1)}
    assert [path.name for path in file.path.parent.iterdir()] == ["epochs.json"]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"front": 7}', '{"front": [1]}', '{"front": [1, -1]}', '{"front": [true, 1]}',
     '{"front": [1.5, 1]}', '{"front": [18446744073709551616, 1]}'],
)  # fmt: skip
def test_a_damaged_file_is_ignored_and_said_so(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = EpochFile(tmp_path / "epochs.json")
    file.path.write_text(text)
    assert file.load() == {}
    assert "epochs.json cannot be read and is ignored" in caplog.text


async def test_changes_are_written_and_a_disk_that_fails_is_tried_again(tmp_path: Path) -> None:
    file, journal = EpochFile(tmp_path / "state" / "epochs.json"), Journal("gw1")
    file.path.parent.write_text("in the way")
    epochs = Epochs(file.load())
    task = asyncio.create_task(file.follow(epochs, journal))
    async with asyncio.timeout(10):
        epochs.see("front", 3)
        while not journal.since(0):
            await asyncio.sleep(0.01)
        file.path.parent.unlink()
        while EpochFile(file.path).load() != {"front": Kept(3, 0)}:
            await asyncio.sleep(0.01)
    assert [event.message for event in journal.since(0)] == ["epochs not written"]
    epochs.see("front", 4)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert EpochFile(file.path).load() == {"front": Kept(4, 0)}
