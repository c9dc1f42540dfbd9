"""Checkpoints of the state database: the log's pages go to the database, their checksums to the mark.

That takes some fsyncs, which others' I/O can stretch to 100 ms and more; so it happens in a thread, and transactions go
on beside it.  The order is kept by a reader:

    reader    begins after the last transaction; as long as it reads SQLite does not begin the log anew
    copier    brings the log's frames up to there to the database, and that to the disk
    mark      gets the sums of these pages, and is brought to the disk
    reader    ends: now the log may begin anew

Whenever it is broken off, each page whose sum the mark does not know is in the log still.  Frames that were written
meanwhile stay in the log as well, and it begins anew only when there are none: so it is tried again at once, and a log
that has become long all the same is brought in while nobody writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import struct
import zlib
from typing import TYPE_CHECKING

from ketch.failpoints import failpoint
from ketch.storage.database import reserve, wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ketch.storage.database.mark import Mark

log = logging.getLogger(__name__)
_TRIES = 3
_LONGEST = 4  # times the space that is kept for the log


class Checkpoints:
    """The checkpoints of one open database, whose descriptors and connection stay the caller's.

    ``lock`` orders its transactions; ``changes`` says how many there were.
    """

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection,
        fds: tuple[int, int],
        mark: Mark,
        lock: AbstractContextManager[bool],
        changes: Callable[[], int],
    ) -> None:
        self._path = path
        self._connection = connection
        self._fd, self._log_fd = fds
        self._mark = mark
        self._lock = lock
        self._changes = changes

    def now(self, *, everything: bool = False) -> None:
        """Make a checkpoint with the lock held; ``everything``: write the checksums of all pages.

        A failure is logged: the log goes on growing until the next one.
        """
        with contextlib.suppress(_Failed):
            self._carry_out(self._connection, self._connection, everything=everything)

    def beside(self) -> None:
        """Make a checkpoint concurrently with transactions; a failure is logged."""
        try:
            with self._other() as reader, self._other() as copier:
                for _ in range(_TRIES):
                    if not (length := self._checkpoint_once(reader, copier)):
                        return
            if length > _LONGEST * reserve.SIZE:
                with self._lock:
                    self.now()
        except _Failed:
            return
        except (sqlite3.Error, OSError) as e:
            log.warning("checkpoint of the state database: %s", e)

    @contextlib.contextmanager
    def _other(self) -> Iterator[sqlite3.Connection]:
        """Another connection, which has read already, so that its work under the lock is short."""
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
            yield connection
        finally:
            connection.close()

    def _checkpoint_once(self, reader: sqlite3.Connection, copier: sqlite3.Connection) -> int:
        """Make one checkpoint; returns the log's size if it grew meanwhile, 0 if it will be begun anew."""
        with self._lock:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_schema").fetchone()
        try:
            frames = self._carry_out(reader, copier)
            reached = _number(reader, "user_version")
        finally:
            reader.execute("COMMIT")
        with self._lock:
            return frames * (wal.FRAME_HEADER + self._mark.page_size) if self._changes() != reached else 0

    def _carry_out(self, reader: sqlite3.Connection, copier: sqlite3.Connection, *, everything: bool = False) -> int:
        """Checkpoint up to the reader's snapshot; returns the number of the log's frames."""
        try:
            changes, pages = _number(reader, "user_version"), _number(reader, "page_count")
            self._mark.make_room(pages)
            busy, frames, done = copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if busy or frames < 0 or reader is copier and frames != done or self._written() != changes:
                raise _Failed  # somebody reads what is older; the log does not begin anew before that is over
        except (sqlite3.Error, OSError) as e:
            log.warning("checkpoint of the state database: %s", e)
            raise _Failed from e
        try:
            failpoint("database.checkpointed")
            self._sum_up(pages, done, changes, everything=everything)
            self.keep_room(reader)
        except OSError as e:
            # The log may begin anew, and the mark does not know the pages that were in it: no mark is better.
            log.error("keep `%s-mark`: %s; it is removed", self._path, e.strerror)
            os.unlink(self._path + "-mark")
        return int(frames)

    def _written(self) -> int:
        """The number of the last transaction that is in the database itself."""
        return int(struct.unpack(">I", os.pread(self._fd, 4, 60))[0])

    def _sum_up(self, pages: int, frames: int, changes: int, *, everything: bool) -> None:
        """Store the checksums of the checkpoint's pages in the mark."""
        size = self._mark.page_size
        if everything:
            numbers = set(range(1, pages + 1))
        else:
            log_data = os.pread(self._log_fd, wal.HEADER + frames * (wal.FRAME_HEADER + size), 0)
            numbers = wal.page_numbers(log_data, frames, size) | set(range(self._mark.pages + 1, pages + 1))
        sums = {n: zlib.crc32(os.pread(self._fd, size, (n - 1) * size)) for n in numbers if n <= pages}
        writes = struct.unpack(">I", os.pread(self._fd, 4, 24))[0]
        self._mark.put_sums(sums, pages)
        with self._lock:
            self._mark.checkpointed(pages, changes, writes)
        self._mark.sync()

    def keep_room(self, reader: sqlite3.Connection) -> None:
        """Reserve space for the pages of the next checkpoint; SQLite goes by its header's count."""
        size = _number(reader, "page_count") * self._mark.page_size
        reserve.fill(self._fd, self._path, size + reserve.GROWTH)


class _Failed(Exception):
    """The checkpoint failed, for a reason that is logged."""


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
