"""The configuration cache: what was saved is loaded; anything else is put aside and never believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbnode.store.base import Entry, View
from lbnode.store.cache import ConfigCache

VIEW = View(42, {"services/tcp:192.0.2.10:80": Entry('{"scheduler": "wrr"}', 40), "checks/ü": Entry("☃", 42)})


def test_nothing_saved(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path / "config.json")
    assert cache.load() is None
    assert cache.problem == ""


def test_saved_and_loaded(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path / "new-directory" / "config.json")
    cache.save(View(1))
    cache.save(VIEW)
    assert ConfigCache(cache.path).load() == VIEW
    assert cache.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in cache.path.parent.iterdir()] == ["config.json"]


def test_a_failed_save_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ConfigCache(tmp_path / "config.json")
    cache.save(VIEW)

    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lbnode.store.cache.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        cache.save(View(43))
    assert cache.load() == VIEW


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_moved_aside_and_reported(tmp_path: Path, data: st.DataObject) -> None:
    cache = ConfigCache(tmp_path / "config.json")
    cache.save(VIEW)
    good = cache.path.read_bytes()
    if data.draw(st.booleans(), label="truncate"):
        bad = good[: data.draw(st.integers(0, len(good) - 1), label="at")]
    else:
        at = data.draw(st.integers(0, len(good) - 1), label="at")
        bad = good[:at] + bytes([data.draw(st.integers(0, 255), label="byte")]) + good[at + 1 :]
    cache.path.write_bytes(bad)
    loaded = cache.load()
    if loaded is not None:  # only white space can differ without harm
        assert loaded == VIEW
        return
    assert "damaged, ignored and moved to config.json.damaged" in cache.problem
    assert (tmp_path / "config.json.damaged").read_bytes() == bad
    assert cache.load() is None
    assert cache.problem == ""


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": 2}', '{"format": 1, "revision": 1, "entries": []}'])
def test_json_that_is_no_cache(tmp_path: Path, text: str) -> None:
    cache = ConfigCache(tmp_path / "config.json")
    cache.path.write_text(text)
    assert cache.load() is None
    assert "damaged" in cache.problem


def test_an_edited_value_is_noticed(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path / "config.json")
    cache.save(VIEW)
    document = json.loads(cache.path.read_text())
    document["entries"]["checks/ü"][1] = "edited"
    cache.path.write_text(json.dumps(document))
    assert cache.load() is None
    assert "checksum mismatch" in cache.problem


def test_a_file_that_cannot_be_read_stays(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path)
    assert cache.load() is None
    assert "cannot be read" in cache.problem
