"""The engine's state: one SQLite file in WAL mode.

Each package that keeps rows hands its own ``Schema`` to ``Database``; a schema is a name and a
list of migration scripts, applied once each, in order, and recorded in ``schema_version``.
Commits are durable when they return (``synchronous=FULL``): what was acknowledged survives a power cut.

One connection, one lock: callers may come from any thread, and transactions do not interleave.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ketch import faults
from ketch.errors import DataLoss, FailedPrecondition, KetchError, ResourceExhausted
from ketch.storage import salvage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


REPAIR = "stop ketchd and run `ketchd --repair` with the same --data-root: it keeps the old file beside the new one"


@dataclass(frozen=True)
class Schema:
    """A package's tables: ``migrations[i]`` takes the tables from version i to i+1."""

    name: str
    migrations: Sequence[str]


class Database:
    """``path`` is created when missing; raises DataLoss when the file is not a usable database."""

    def __init__(self, path: str, schemas: Sequence[Schema]) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._wal_fd = -1
        self._depth = 0
        self._durable = True
        if salvage.wal_is_damaged(path):
            raise DataLoss(f"open state database: its write-ahead log `{path}-wal` is damaged", hint=REPAIR)
        try:
            self._conn = sqlite3.connect(path, check_same_thread=False, isolation_level=None, cached_statements=256)
            self._conn.row_factory = sqlite3.Row
            self._conn.execute("PRAGMA journal_mode=WAL")
            self._conn.execute("PRAGMA synchronous=FULL")
            self._conn.execute("PRAGMA foreign_keys=ON")
            # Each page once, and that no row is in two places: some milliseconds for thousands of rows.
            verdict = self._conn.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise DataLoss(f"open state database `{path}`: it is damaged ({verdict})", hint=REPAIR)
            for schema in schemas:
                self._migrate(schema)
        except sqlite3.Error as e:
            raise _explained(e, path) from e

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

    def _migrate(self, schema: Schema) -> None:
        with self.transaction() as tx:
            tx.execute("CREATE TABLE IF NOT EXISTS schema_version (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            row = tx.execute("SELECT version FROM schema_version WHERE name = ?", (schema.name,)).fetchone()
            version = row["version"] if row else 0
            if version > len(schema.migrations):
                raise DataLoss(
                    f"open state database: its `{schema.name}` tables are version {version}, "
                    f"this program knows {len(schema.migrations)}",
                    hint="run the newer version of ketch that wrote it",
                )
            for script in schema.migrations[version:]:
                for statement in script.split(";"):
                    if statement.strip():
                        tx.execute(statement)
            tx.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (schema.name, len(schema.migrations)))

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; nested calls join the outer transaction.

        Without ``durable`` the commit survives the death of this process, and not surely a power cut: for state that
        is void after a boot anyway (0.03 ms instead of an fsync, which other writers' I/O can stretch to 100 ms).
        """
        with self._lock:
            if self._depth:
                yield self._conn
                return
            try:
                if durable != self._durable:
                    self._conn.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                self._conn.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield self._conn
                faults.point("database.commit")
                self._conn.execute("COMMIT")
                faults.point("database.committed")
            except sqlite3.IntegrityError:
                raise  # the caller's business: a name is taken
            except sqlite3.Error as e:
                raise _explained(e, self._path) from e
            finally:
                self._depth = 0
                if self._conn.in_transaction:  # a failed commit leaves it open, a full disk may have ended it
                    self._conn.execute("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a read."""
        with self._lock:
            try:
                return self._conn.execute(sql, parameters).fetchall()
            except sqlite3.Error as e:
                raise _explained(e, self._path) from e

    def sync(self) -> None:
        """Make durable what was committed without; blocking, but commits can go on meanwhile.

        What was committed is in the log, or a checkpoint has taken it to the database and made it durable there.
        """
        with self._lock:
            if self._wal_fd < 0:
                self._wal_fd = os.open(self._path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        os.fdatasync(self._wal_fd)

    def close(self) -> None:
        """Checkpoint and close; the object is unusable afterwards."""
        with self._lock:
            if self._wal_fd >= 0:
                os.close(self._wal_fd)
                self._wal_fd = -1
            self._conn.close()


def _explained(error: sqlite3.Error, path: str) -> KetchError:
    """SQLite's failure in the words of our family (https://sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return ResourceExhausted(f"write state database `{path}`: the disk is full", hint="free some space")
    if code == sqlite3.SQLITE_READONLY:
        return FailedPrecondition(f"write state database `{path}`: its file system is read-only")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(f"use state database `{path}`: it is damaged ({error})", hint=REPAIR)
    if code == sqlite3.SQLITE_CANTOPEN:
        return ResourceExhausted(f"open state database `{path}`: {error}", hint="is there a descriptor left?")
    return KetchError(f"use state database `{path}`: {error}")
