"""Removals that are under way, written in the transaction that forgets what is removed.

    CREATE TABLE removals (name)      containers/<id>, sha256:<digest of a blob, or chain id of a layer>

Whoever finds a directory or a blob that nothing refers to can tell by it whether that was to go, and a crash came
before it was gone, or whether the state has lost its owner.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ketch.storage.database.db import REMOVALS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Connection

    from ketch.storage.database.db import Database

SCHEMA = REMOVALS


class Removals:
    """The names of one kind, told apart by ``prefix``; may be used from any thread."""

    def __init__(self, db: Database, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        rows = db.query("SELECT name FROM removals WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        self._begun = {str(row["name"]) for row in rows}
        self._done: set[str] = set()

    def begin(self, tx: Connection, names: Iterable[str]) -> None:
        """A part of another's transaction: these go (without the prefix).  What is done leaves the table with it."""
        begun = [self._prefix + name for name in names]
        with self._lock:
            done, self._done = self._done, set()
            self._begun.update(begun)
        tx.executemany("DELETE FROM removals WHERE name = ?", [(name,) for name in done])
        tx.executemany("INSERT OR IGNORE INTO removals VALUES (?)", [(name,) for name in begun])

    def end(self, names: Iterable[str]) -> None:
        """These are gone, or are to stay after all; the table learns it with the next one that begins."""
        ended = {self._prefix + name for name in names}
        with self._lock:
            self._done.update(ended & self._begun)
            self._begun -= ended

    def pending(self) -> set[str]:
        """Those that were begun and not ended, without the prefix."""
        with self._lock:
            return {name.removeprefix(self._prefix) for name in self._begun}
