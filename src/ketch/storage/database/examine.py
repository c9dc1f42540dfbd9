"""Examination of the state database before SQLite opens it: whether all acknowledged data is intact.

SQLite takes a log that is missing or cut short for what a crash leaves, and goes on with older state, to which newer
containers and layers are garbage.  The mark (`mark`) knows better.  Nothing is changed here: what the database would be
with its log is put together in memory.

    transactions: fewer than the mark says        refused: the log or the database is older, cut or gone
    a page that is not in the log: another sum    refused: it is damaged, or of another database
    whole frames behind a broken one              refused: damaged (by a power cut, perhaps, after a boot)
    no log, all transactions in the file          another program has opened and closed it: taken as it is
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import struct
import zlib
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.errors import DataLoss
from ketch.storage.database import mark, records, wal

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)
MAGIC = b"SQLite format 3\0"
REPAIR = "stop ketchd and run `ketchd --repair` with the same --data-root: it keeps the old file beside the new one"
_EDITED = (
    "run `ketchd --repair` with the same --data-root; if another program has changed it on purpose, remove "
    "`{path}-mark` and it is taken as it is"
)


class Finding(Struct, frozen=True):
    """A database that may be opened: ``state`` of its mark (None: no mark), ``image`` with the log applied.

    ``vouched``: the mark says that nothing is missing.  Else what is in the data root and not in the database has
    to be looked at: the database may be older than it.
    """

    image: bytes
    state: mark.DatabaseState | None
    vouched: bool


def examine(path: str, versions: Mapping[str, int], forms: Mapping[str, int]) -> Finding | None:
    """Examine the database ``path`` and its log; None for a new one (DataLoss: it must not be opened).

    ``versions`` are those of the tables that this program knows, ``forms`` those of the records in a table.
    """
    state = mark.read(path)
    if not os.path.exists(path) or not os.path.getsize(path):
        if state is not None and state.changes:
            raise DataLoss(f"open state database: `{path}` is missing or empty", hint=REPAIR)
        return None
    with open(path, "rb") as f:
        data = f.read()
    log_data = wal.content(path)
    if not wal.is_empty(log_data) and wal.head_is_damaged(log_data[: wal.HEADER]):
        raise DataLoss(f"open state database: its write-ahead log `{path}-wal` is damaged", hint=REPAIR)
    if not data.startswith(MAGIC):
        raise DataLoss(f"open state database `{path}`: it is damaged (file is not a database)", hint=REPAIR)
    page_size = struct.unpack(">H", data[16:18])[0]
    page_size = 65536 if page_size == 1 else page_size
    if page_size < 512 or page_size & (page_size - 1):
        raise DataLoss(f"open state database `{path}`: it is damaged (its pages have no size)", hint=REPAIR)
    frames = wal.parse(log_data, page_size)
    image = _overlaid(data, frames, page_size)
    _check_versions(path, image, versions, forms)
    if state is None:
        if frames.beyond:
            raise DataLoss(_broken_log(path, frames), hint=REPAIR)
        log.warning("`%s-mark` is missing or damaged: whether the database is whole cannot be told", path)
        return Finding(image, None, vouched=False)
    return Finding(image, state, vouched=_compare(path, state, data, image, frames, has_log=not wal.is_empty(log_data)))


def _compare(
    path: str, state: mark.DatabaseState, data: bytes, image: bytes, frames: wal.WalFrames, *, has_log: bool
) -> bool:
    """Compare with the mark; returns whether all pages match."""
    identity, changes = struct.unpack_from(">I", image, 68)[0], struct.unpack_from(">I", image, 60)[0]
    if identity != state.identity:
        raise DataLoss(f"open state database `{path}`: it is not the one of this data root", hint=REPAIR)
    if missing := mark.behind(changes, state.changes):
        where = "its write-ahead log is cut short or older" if has_log else f"its write-ahead log `{path}-wal` is gone"
        if state.closed and not has_log:
            where = "it is an older copy"
        raise DataLoss(
            f"open state database `{path}`: it lacks {missing} transactions that were acknowledged: {where}",
            hint=REPAIR,
        )
    if state.closed and has_log:
        raise DataLoss(f"open state database `{path}`: it was closed, and `{path}-wal` is not its log", hint=REPAIR)
    if frames.beyond:
        if state.boot == mark.boot_id():
            raise DataLoss(_broken_log(path, frames), hint=REPAIR)
        log.warning("%s; it was written just before a power cut and not acknowledged", _broken_log(path, frames))
    wrong = _differing(state, data, frames)
    if not wrong:
        return True
    edited = struct.unpack_from(">I", data, 24)[0] > state.writes and data[24:28] == data[92:96]
    if not has_log and (not state.closed or edited):
        log.warning("state database `%s`: another program has changed it since the last checkpoint", path)
        return False
    raise DataLoss(
        f"open state database `{path}`: it is damaged (page {wrong[0]} is not what was written)",
        hint=_EDITED.format(path=path),
    )


def _broken_log(path: str, frames: wal.WalFrames) -> str:
    return f"open state database: its write-ahead log `{path}-wal` is damaged behind frame {frames.whole}"


def _differing(state: mark.DatabaseState, data: bytes, frames: wal.WalFrames) -> list[int]:
    """The pages that are not in the log and differ from the last checkpoint."""
    size, view = state.page_size, memoryview(data)
    return [
        number
        for number, wanted in enumerate(state.sums, 1)
        if number not in frames.pages and zlib.crc32(view[(number - 1) * size : number * size]) != wanted
    ]


def _overlaid(data: bytes, frames: wal.WalFrames, page_size: int) -> bytes:
    """The database with the log applied, as an image that SQLite can open in memory."""
    image = bytearray(data)
    if frames.size:
        del image[frames.size * page_size :]
        image.extend(bytes(frames.size * page_size - len(image)))
    for number, page in frames.pages.items():
        if (number - 1) * page_size < len(image):
            image[(number - 1) * page_size : number * page_size] = page
    if image[24:28] == image[92:96]:  # the header knows how many pages there are; what is behind them is `reserve`'s
        del image[struct.unpack_from(">I", image, 28)[0] * page_size :]
    image[18:20] = b"\1\1"  # no log: SQLite has none in memory (§1.3.3 file format version numbers)
    return bytes(image)


def opened(image: bytes) -> sqlite3.Connection:
    """A connection to a database in memory."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.deserialize(image)
    return connection


def _check_versions(path: str, image: bytes, known: Mapping[str, int], forms: Mapping[str, int]) -> None:
    """Raise DataLoss for misplaced pages, or for tables or records of a newer program."""
    try:
        with contextlib.closing(opened(image)) as connection:
            # Each page once, and that no row is in two places: some milliseconds for thousands of rows.
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise DataLoss(f"open state database `{path}`: it is damaged ({verdict})", hint=REPAIR)
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'schema_version'").fetchall()
            found = connection.execute("SELECT name, version FROM schema_version").fetchall() if tables else ()
            for name, version in found:
                if name in known and version > known[name]:
                    raise DataLoss(
                        f"open state database: its `{name}` tables are version {version}, "
                        f"this program knows {known[name]}",
                        hint=records.NEWER,
                    )
            for table, version in forms.items():
                _check_records(path, connection, table, version)
    except sqlite3.Error as e:
        raise DataLoss(f"open state database `{path}`: it is damaged ({e})", hint=REPAIR) from e


def _check_records(path: str, connection: sqlite3.Connection, table: str, known: int) -> None:
    """Raise DataLoss when a row of ``table`` has a record of a newer version."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone():
        return
    for head in connection.execute(f"SELECT CAST(substr(record, 1, {records.HEAD}) AS BLOB) FROM {table}"):
        if (version := records.version_of(head[0] or b"")) > known:
            raise DataLoss(
                f"open state database: a record in its table `{table}` is of version {version}, "
                f"this program knows {known}",
                hint=records.NEWER,
            )
