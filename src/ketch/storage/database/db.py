"""The engine's state: one SQLite file in WAL mode.

Each package that keeps rows hands its own ``Schema`` to ``Database``; a schema is a name and a
list of migration scripts, applied once each, in order, and recorded in ``schema_version``.
Commits are durable when they return: what was acknowledged survives a power cut.

    ketch.db, ketch.db-wal, ketch.db-shm     SQLite's
    ketch.db-mark                            how far it had come (`mark`); compared before it is opened (`examine`)
    ketch.db-reserve                         space for a full disk, while it is closed (`reserve`)

One connection, one lock: callers may come from any thread, and transactions do not interleave.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ketch.errors import DataLoss, FailedPrecondition, KetchError, ResourceExhausted
from ketch.failpoints import failpoint
from ketch.storage.database import examine, mark, reserve, wal
from ketch.storage.database.checkpoint import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REPAIR = examine.REPAIR
log = logging.getLogger(__name__)
_CHECKPOINT_AFTER = 256  # transactions: about the thousand pages that SQLite's own checkpoints would wait for
_LEAST = 64 << 10
_FREE = "free some space: removing containers, images and volumes works"
# Without room: the index of the log cannot be made, or a quota is used up.
_NO_ROOM = (
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
)


class Schema(Struct, frozen=True):
    """A package's tables: ``migrations[i]`` takes the tables from version i to i+1.

    ``records``: those with a column ``record`` (`records`), and the newest version that may stand there.
    """

    name: str
    migrations: Sequence[str]
    records: Mapping[str, int] = field(default_factory=dict)


REMOVALS = Schema("removals", ("CREATE TABLE removals (name TEXT PRIMARY KEY)",))  # every database has it


class Database:
    """``path`` is created when missing; raises DataLoss when the file is not a usable database.

    ``suspect`` is called with a connection to what is there when nothing says whether it is all there was; what it
    raises ends the opening, with nothing changed.
    """

    _conn: sqlite3.Connection
    _mark: mark.Mark
    _fd: int
    _log_fd: int
    _checkpoints: Checkpoints
    _changes: int

    def __init__(
        self, path: str, schemas: Sequence[Schema], suspect: Callable[[sqlite3.Connection], None] = lambda _db: None
    ) -> None:
        self._path = path
        self._schemas = schemas = (*(schema for schema in schemas if schema is not REMOVALS), REMOVALS)
        self._lock = threading.RLock()
        self._syncing = threading.Lock()  # the kernel tells of a write that failed once: to whoever asks first
        self._lost = ""  # why nothing can be changed any more
        self._depth = 0
        self._since = 0  # transactions since the last checkpoint
        self._checkpointing: threading.Thread | None = None
        self._closed = False
        self._closing = contextlib.ExitStack()
        self._asleep: examine.Finding | None = None  # there was no room to open it: `_conn` is a copy in memory
        for own in (path, path + "-wal", path + "-shm"):  # SQLite would only say that it cannot open something
            if os.path.isdir(own):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), own)
        found = examine.examine(
            path,
            {schema.name: len(schema.migrations) for schema in schemas},
            {table: version for schema in schemas for table, version in schema.records.items()},
        )
        if found is not None and not found.vouched:
            with contextlib.closing(examine.opened(found.image)) as connection:
                suspect(connection)
        try:
            self._open(found)
        except ResourceExhausted as e:
            if found is None:
                raise
            log.warning("%s: nothing can be changed until there is some", e.message)
            self._asleep = found
            self._conn = examine.opened(found.image)

    def _open(self, found: examine.Finding | None) -> None:
        """Connect, migrate the tables, and begin to keep the mark."""
        path, state = self._path, found.state if found is not None else None
        with contextlib.ExitStack() as undo:
            try:
                kept = mark.Mark(path, state) if state is not None else None
                if kept is not None:
                    undo.callback(kept.close)
                reserve.put_back(path)
                failpoint("database.log-put-back")
                # Closing any descriptor of the file would end SQLite's locks on it (POSIX): this one stays longer.
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                undo.callback(os.close, self._fd)
                self._conn = undo.enter_context(contextlib.closing(_connect(path)))
                self._log_fd = os.open(path + "-wal", os.O_RDWR | os.O_CLOEXEC)
                undo.callback(os.close, self._log_fd)
                reserve.fill(self._log_fd, path)
                # The last process may have been told that it did not reach the disk.
                _write_again(self._log_fd, self._number("page_size"))
                identity, self._changes = self._number("application_id"), self._number("user_version")
                if not identity:
                    identity = secrets.randbelow((1 << 31) - 1) + 1
                    self._conn.execute(f"PRAGMA application_id={identity}")
                if kept is None:
                    kept = mark.Mark(path, mark.DatabaseState(identity, self._number("page_size")))
                    undo.callback(kept.close)
                self._mark = kept
                fds = (self._fd, self._log_fd)
                self._checkpoints = Checkpoints(path, self._conn, fds, kept, self._lock, lambda: self._changes)
                for schema in self._schemas:
                    self._migrate(schema)
                if found is None or not found.vouched:
                    self._checkpoints.now(everything=True)
                self._checkpoints.keep_room(self._conn)
                self.sync()
            except sqlite3.Error as e:
                raise _explained(e, path) from e
            except OSError as e:
                raise _without_room(e, path) from e
            self._closing = undo.pop_all()

    def _number(self, pragma: str) -> int:
        return int(self._conn.execute(f"PRAGMA {pragma}").fetchone()[0])

    @property
    def path(self) -> str:
        """The path of the database file."""
        return self._path

    @property
    def identity(self) -> int:
        """A random number from the database's creation; copies of a data root have the same one."""
        with self._lock:
            return self._number("application_id")

    def _migrate(self, schema: Schema) -> None:
        known = self._conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_version'").fetchone()
        sql = "SELECT version FROM schema_version WHERE name = ?"
        row = self._conn.execute(sql, (schema.name,)).fetchone() if known else None
        version = row["version"] if row else 0
        if row and version == len(schema.migrations):
            return
        with self.transaction() as tx:
            tx.execute("CREATE TABLE IF NOT EXISTS schema_version (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            for script in schema.migrations[version:]:
                for statement in script.split(";"):
                    if statement.strip():
                        tx.execute(statement)
            tx.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (schema.name, len(schema.migrations)))

    @contextmanager
    def transaction(self, *, durable: bool = True, grows: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction; nested calls join the outer one.

        Without ``durable`` the commit survives the death of this process, and not surely a power cut: for state that
        is void after a boot anyway, or until `sync` (0.03 ms instead of an fsync, which others' I/O can stretch to
        100 ms): the event loop lets `sync` follow in a thread.  While one thread waits for its fsync, others commit.
        What ``grows``, and does not help to free anything, does not use the space that is kept for a full
        disk: ResourceExhausted.
        """
        self._spare_the_log()
        with self._lock:
            if self._depth:
                yield self._conn
                return
            self._check_not_lost()
            if self._asleep is not None:
                self._wake()
            if grows and reserve.free_bytes(self._path) < _LEAST:
                raise ResourceExhausted(f"write state database `{self._path}`: the disk is full", hint=_FREE)
            changes = mark.following(self._changes)
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield self._conn
                failpoint("database.commit")
                self._conn.execute(f"PRAGMA user_version={changes}")
                self._conn.execute("COMMIT")
                failpoint("database.committed")
            except sqlite3.IntegrityError:
                raise  # the caller's business: a name is taken
            except sqlite3.Error as e:
                raise _explained(e, self._path) from e
            finally:
                self._depth = 0
                if self._conn.in_transaction:  # a failed commit leaves it open, a full disk may have ended it
                    self._conn.execute("ROLLBACK")
            self._changes = changes
            self._since += 1
            if self._since >= _CHECKPOINT_AFTER:
                self._begin_checkpoint()
        if durable:
            self.sync()

    def _wake(self) -> None:
        """Open a database that was left closed for want of space (ResourceExhausted: still none)."""
        copy, found = self._conn, self._asleep
        try:
            self._open(found)
        except ResourceExhausted:
            self._conn = copy
            raise
        self._asleep = None
        copy.close()
        log.info("there is room again: the state can be changed")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            try:
                return self._conn.execute(sql, parameters).fetchall()
            except sqlite3.Error as e:
                raise _explained(e, self._path) from e

    def sync(self) -> None:
        """Make committed transactions durable; blocking, concurrently with commits.

        What was committed is in the log, or a checkpoint has taken it to the database and made it durable there.
        DataLoss when the disk does not take it; from then on nothing can be changed.
        """
        with self._syncing:
            with self._lock:
                if self._asleep is not None:
                    return
                self._check_not_lost()
                changes, log_fd = self._changes, self._log_fd
            try:
                _to_the_disk(log_fd)
            except OSError as e:
                self._bring_again(e)
            else:
                with self._lock:
                    self._mark.acknowledge(changes)

    def _bring_again(self, error: OSError) -> None:
        """Write the log again after a failed fsync, whose pages the kernel takes for clean.

        As long as they can be read they can be written anew; the next fsync would succeed without that, for nothing.
        """
        with self._lock:
            try:
                data = _write_again(self._log_fd, self._mark.page_size)
                _to_the_disk(self._log_fd)
                if mark.behind(self._in_log(data), self._changes):
                    raise OSError(errno.EIO, "transactions cannot be read back")
            except OSError as e:
                self._lost = f"bring state database `{self._path}` to the disk: {e.strerror}"
                log.error("%s: nothing is changed any more, containers run on", self._lost)
                self._check_not_lost(error)
            self._mark.acknowledge(self._changes)
            log.warning("write state database `%s`: %s; the second attempt succeeded", self._path, error.strerror)

    def _in_log(self, data: bytes) -> int:
        """The number of the last complete transaction in the log, or in the database without a log."""
        first = wal.parse(data, self._mark.page_size).pages.get(1) or os.pread(self._fd, 100, 0)
        return int.from_bytes(first[60:64], "big")

    def _check_not_lost(self, cause: BaseException | None = None) -> None:
        if self._lost:
            raise DataLoss(
                self._lost, hint="see the kernel's log; when the disk works again, start ketchd anew: containers run on"
            ) from cause

    def _spare_the_log(self) -> None:
        """On a nearly full disk, wait for the checkpoint under way, so that the log begins anew.

        It has no more space than what is kept for it then, and beside a checkpoint it would go on growing.
        """
        under_way = self._checkpointing
        if under_way is None or self._depth or not under_way.is_alive():
            return
        if reserve.free_bytes(self._path) < 2 * reserve.SIZE:
            under_way.join()
            with self._lock:
                self._checkpoints.now()

    def _begin_checkpoint(self) -> None:
        """Start a checkpoint concurrent with the next transactions, unless one is under way."""
        if self._closed or self._checkpointing is not None and self._checkpointing.is_alive():
            return
        self._since = 0
        thread = threading.Thread(target=self._checkpoints.beside, name="checkpoint", daemon=True)
        try:
            thread.start()
        except RuntimeError as e:  # the log goes on growing until the next one
            log.warning("checkpoint of the state database: %s", e)
        else:
            self._checkpointing = thread

    def close(self) -> None:
        """Checkpoint and close; the object is unusable afterwards."""
        with self._lock:
            self._closed = True
        if self._checkpointing is not None:
            self._checkpointing.join()
        with self._lock:
            if self._asleep is not None or self._lost:
                self._conn.close()
                return
            self._checkpoints.now()
            reserve.keep(self._path)
            self._conn.close()
            failpoint("database.closed")
            reserve.kept(self._path)
            if not os.path.exists(self._path + "-wal"):
                self._mark.seal()
            self._closing.close()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, cached_statements=256)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # `transaction` makes commits durable
        connection.execute("PRAGMA wal_autocheckpoint=0")  # `Checkpoints` keeps the mark
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _to_the_disk(log_fd: int) -> None:
    failpoint("database.sync")
    os.fdatasync(log_fd)


def _write_again(log_fd: int, page_size: int) -> bytes:
    """Rewrite the log's frames unchanged, so that the next fsync writes them; returns the log."""
    data = os.pread(log_fd, os.fstat(log_fd).st_size, 0)
    frames = data[: wal.length(data, page_size)]
    if os.pwrite(log_fd, frames, 0) != len(frames):
        raise OSError(errno.EIO, "the log cannot be written again")
    return data


def _without_room(error: OSError, path: str) -> KetchError | OSError:
    """The error, as a KetchError when it is for want of space."""
    if error.errno in reserve.FULL:
        return ResourceExhausted(f"open state database `{path}`: no space left on device", hint=_FREE)
    return error


def _explained(error: sqlite3.Error, path: str) -> KetchError:
    """SQLite's error as a KetchError (https://sqlite.org/rescode.html)."""
    full = getattr(error, "sqlite_errorcode", 0)
    code = full & 0xFF
    if code == sqlite3.SQLITE_FULL or full in _NO_ROOM and not reserve.may_grow(path, _LEAST):
        is_quota = code != sqlite3.SQLITE_FULL and reserve.free_bytes(path) >= _LEAST
        what = "the user's quota is reached" if is_quota else "the disk is full"
        return ResourceExhausted(f"write state database `{path}`: {what}", hint=_FREE)
    if code == sqlite3.SQLITE_READONLY:
        return FailedPrecondition(f"write state database `{path}`: its file system is read-only")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(f"use state database `{path}`: it is damaged ({error})", hint=REPAIR)
    if code == sqlite3.SQLITE_CANTOPEN:
        return ResourceExhausted(
            f"open state database `{path}`: {error}", hint="is there a descriptor or an inode left?"
        )
    return KetchError(f"use state database `{path}`: {error}")
