"""Removals under way, recorded in the transaction that deletes the objects' rows.

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
    """The removals of one type of object (``prefix``); thread-safe."""

    def __init__(self, db: Database, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        rows = db.query("SELECT name FROM removals WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        self._begun = {str(row["name"]) for row in rows}
        self._done: set[str] = set()

    def begin(self, tx: Connection, names: Iterable[str]) -> None:
        """Record removals, in the caller's transaction; finished ones are deleted with it."""
        begun = [self._prefix + name for name in names]
        with self._lock:
            done, self._done = self._done, set()
            self._begun.update(begun)
        tx.executemany("DELETE FROM removals WHERE name = ?", [(name,) for name in done])
        tx.executemany("INSERT OR IGNORE INTO removals VALUES (?)", [(name,) for name in begun])

    def end(self, names: Iterable[str]) -> None:
        """End removals (done or cancelled); their rows are deleted with the next `begin`."""
        ended = {self._prefix + name for name in names}
        with self._lock:
            self._done.update(ended & self._begun)
            self._begun -= ended

    def pending(self) -> set[str]:
        """The names of removals that have not ended, without the prefix."""
        with self._lock:
            return {name.removeprefix(self._prefix) for name in self._begun}
