"""The tables of the embedded store. Blocking; one instance belongs to one thread.

kv     the keys, with the revision of their last modification and their lease
event  what each revision changed, newest KEEP_REVISIONS only: readers further behind list everything again
meta   revision; compacted: the newest revision that is no longer in `event`
lease  deadline on the boot clock: CLOCK_BOOTTIME of boot `boot`, which no clock change moves and every process shares
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lbnode.store.base import Entry, Expect
from lbnode.store.keyspace import Change, conflict

KEEP_REVISIONS = 1000
BUSY_S = 5.0  # how long to wait for another process's transaction

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv(
  key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
  revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY(revision, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease(
  id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, deadline REAL NOT NULL, ttl REAL NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('revision', 1), ('compacted', 1);
"""


def boot_clock() -> float:
    """Seconds since boot, counted through suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Database:
    """Raises sqlite3.Error; then discard the object."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            self._switch_to_wal()
            self._db.execute("PRAGMA synchronous=FULL")  # a transaction that was answered survives a power cut
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise sqlite3.DatabaseError(f"was written by a newer release (format {version}, known: {_VERSION})")
            if version < _VERSION:  # a new file
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
            self._inode = path.stat().st_ino
        except sqlite3.Error:
            self._db.close()
            raise

    def _switch_to_wal(self) -> None:
        """SQLite does not wait for another process that opens the new file at the same time: it fails at once."""
        deadline = boot_clock() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or boot_clock() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _meta(self, name: str) -> int:
        return int(self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])

    def replaced(self) -> bool:
        """The file was removed or another one moved to its place (a restored backup)."""
        try:
            return self._inode != self._path.stat().st_ino
        except FileNotFoundError:
            return True

    # --- reading ---------------------------------------------------------------------------------------------

    def read_all(self) -> tuple[int, dict[str, Entry]]:
        with self._transaction("DEFERRED"):
            rows = self._db.execute("SELECT key, value, revision FROM kv").fetchall()
            return self._meta("revision"), {key: Entry(value, revision) for key, value, revision in rows}

    def changes_after(self, revision: int) -> list[Change] | None:
        """All changes after `revision` in order; None if some were pruned, or `revision` lies ahead."""
        with self._transaction("DEFERRED"):
            if self._meta("compacted") > revision or self._meta("revision") < revision:
                return None
            rows = self._db.execute(
                "SELECT revision, key, value FROM event WHERE revision > ? ORDER BY revision", (revision,)
            )
            return [Change(*row) for row in rows]

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int:
        """One transaction; the new revision (the present one if nothing changed). StoreConflict."""
        with self._transaction("IMMEDIATE"):
            found = {}
            for guard in expect:
                row = self._db.execute("SELECT revision FROM kv WHERE key = ?", (guard.key,)).fetchone()
                if row is not None:
                    found[guard.key] = int(row[0])
            if (error := conflict(expect, found)) is not None:
                raise error
            return self._apply(puts, deletes)

    def write_leased(self, lease: int, puts: Mapping[str, str]) -> bool:
        """Put keys that end with `lease`; False if the lease is gone."""
        with self._transaction("IMMEDIATE"):
            if not self._db.execute("SELECT 1 FROM lease WHERE id = ?", (lease,)).fetchone():
                return False
            self._apply(puts, (), lease)
            return True

    def _apply(self, puts: Mapping[str, str], deletes: Sequence[str], lease: int = 0) -> int:
        revision = self._meta("revision") + 1
        gone = [
            key for key in dict.fromkeys(deletes) if self._db.execute("DELETE FROM kv WHERE key = ?", (key,)).rowcount
        ]
        if not puts and not gone:
            return revision - 1
        self._db.executemany(
            "INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?)",
            [(key, text, revision, lease) for key, text in puts.items()],
        )
        events = [(revision, key, None) for key in gone] + [(revision, key, text) for key, text in puts.items()]
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?)", events)
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
        if revision - self._meta("compacted") >= 2 * KEEP_REVISIONS:  # seldom, and then half of it
            self._db.execute("DELETE FROM event WHERE revision <= ?", (revision - KEEP_REVISIONS,))
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (revision - KEEP_REVISIONS,))
        return revision

    # --- leases ----------------------------------------------------------------------------------------------

    def grant(self, ttl_s: float) -> int:
        with self._transaction("IMMEDIATE"):
            row = (self._boot, boot_clock() + ttl_s, ttl_s)
            return int(self._db.execute("INSERT INTO lease(boot, deadline, ttl) VALUES (?, ?, ?)", row).lastrowid or 0)

    def keep_alive(self, lease: int) -> bool:
        """False if the lease is gone."""
        with self._transaction("IMMEDIATE"):
            sql = "UPDATE lease SET deadline = ? + ttl WHERE id = ? AND boot = ? AND deadline > ?"
            now = boot_clock()
            return bool(self._db.execute(sql, (now, lease, self._boot, now)).rowcount)

    def revoke(self, lease: int) -> int:
        """End a lease and delete its keys; returns the revision."""
        with self._transaction("IMMEDIATE"):
            return self._end([lease])

    def expire(self) -> bool:
        """End leases whose time is over, or that were granted before the machine booted; True if there were any."""
        if not self._due():
            return False
        with self._transaction("IMMEDIATE"):
            due = self._due()  # another process may have been faster
            self._end(due)
            return bool(due)

    def _due(self) -> list[int]:
        sql = "SELECT id FROM lease WHERE boot != ? OR deadline <= ?"
        return [row[0] for row in self._db.execute(sql, (self._boot, boot_clock())).fetchall()]

    def _end(self, leases: list[int]) -> int:
        keys = [
            row[0]
            for lease in leases
            for row in self._db.execute("SELECT key FROM kv WHERE lease = ?", (lease,)).fetchall()
        ]
        self._db.executemany("DELETE FROM lease WHERE id = ?", [(lease,) for lease in leases])
        return self._apply({}, keys)
