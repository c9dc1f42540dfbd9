"""The mark beside the state database: its last transaction and checksums, to detect missing data.

    ketch.db-mark      a header of one sector, rewritten in place; from byte 4096 on one CRC-32 for each page

The database counts its transactions (``user_version`` in its header).  The mark is told a number once all transactions
up to it are on the disk, and is itself brought there only when the database is opened, checkpointed and closed: after a
power cut it says too little and never too much.  The sums are those of the last checkpoint; pages that have changed
since are in the log, which has sums of its own.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

from msgspec import Struct, structs

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAGIC = b"ketchdb1"
_HEADER = struct.Struct(">8sIIIIIB36s")
_SUMS = 4096


class DatabaseState(Struct, frozen=True):
    """The state of a database according to its mark.

    ``identity`` is its application id, ``changes`` the number of transactions that it has at least, ``writes`` its
    header's change counter at the last checkpoint, ``closed`` that it was closed properly, ``boot`` the kernel's boot
    id at its opening.
    """

    identity: int
    page_size: int
    changes: int = 0
    writes: int = 0
    closed: bool = False
    boot: str = ""
    sums: tuple[int, ...] = ()


_TURN = 1 << 31  # SQLite's user_version is signed


def following(changes: int) -> int:
    """The number of the next transaction; it wraps around after two thousand million."""
    return (changes + 1) % _TURN


def behind(changes: int, other: int) -> int:
    """The number of transactions that ``changes`` is behind ``other``; 0 when it is not."""
    distance = (other - changes) % _TURN
    return distance if distance < _TURN // 2 else 0


def boot_id() -> str:
    """The kernel's boot id."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def read(path: str) -> DatabaseState | None:
    """Read the mark beside the database ``path``; None when it is missing or unreadable."""
    try:
        with open(path + "-mark", "rb") as f:
            data = f.read()
    except FileNotFoundError:
        return None
    head = data[: _HEADER.size]
    if len(head) < _HEADER.size or data[_HEADER.size : _HEADER.size + 4] != struct.pack(">I", zlib.crc32(head)):
        return None
    magic, identity, page_size, changes, writes, pages, closed, boot = _HEADER.unpack(head)
    sums = data[_SUMS : _SUMS + 4 * pages]
    if magic != _MAGIC or len(sums) != 4 * pages:
        return None
    return DatabaseState(
        identity,
        page_size,
        changes,
        writes,
        bool(closed),
        boot.rstrip(b"\0").decode("ascii", "replace"),
        struct.unpack(f">{pages}I", sums),
    )


class Mark:
    """The mark's file, open for writing; the caller serializes writes."""

    def __init__(self, path: str, state: DatabaseState) -> None:
        """Open the file beside the database ``path``, or make it with ``state``."""
        self._state = structs.replace(state, closed=False, boot=boot_id())
        self._fd = os.open(path + "-mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._write()
            os.fsync(self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def acknowledge(self, changes: int) -> None:
        """Record the number of durable transactions, with a write to the page cache and no fsync."""
        if behind(self._state.changes, changes):
            self._state = structs.replace(self._state, changes=changes)
            self._write()

    @property
    def page_size(self) -> int:
        """The database's page size."""
        return self._state.page_size

    @property
    def pages(self) -> int:
        """The number of pages with checksums."""
        return len(self._state.sums)

    def make_room(self, pages: int) -> None:
        """Reserve space for checksums, so that `checkpointed` needs none (OSError)."""
        size, needed = os.fstat(self._fd).st_size, _SUMS + -(-4 * pages // _SUMS) * _SUMS
        if size < needed:
            os.pwrite(self._fd, bytes(needed - size), size)

    def put_sums(self, sums: Mapping[int, int], pages: int) -> None:
        """Store new checksums of pages (of ``pages``); valid with `checkpointed`.

        What is half-written when somebody dies is about pages that are in the log.
        """
        if len(sums) == pages:
            os.pwrite(self._fd, struct.pack(f">{pages}I", *(sums[n] for n in range(1, pages + 1))), _SUMS)
        else:
            for number, value in sums.items():
                os.pwrite(self._fd, struct.pack(">I", value), _SUMS + 4 * (number - 1))

    def checkpointed(self, pages: int, changes: int, writes: int) -> None:
        """Record the pages and transactions in the database itself; after `sync` the log may begin anew."""
        changes = changes if behind(self._state.changes, changes) else self._state.changes
        self._state = structs.replace(self._state, changes=changes, writes=writes, sums=(0,) * pages)
        self._write()

    def sync(self) -> None:
        """Sync the mark; concurrent with writes."""
        os.fsync(self._fd)

    def seal(self) -> None:
        """Record that the database was closed without a log."""
        self._state = structs.replace(self._state, closed=True)
        self._write()
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _write(self) -> None:
        state = self._state
        head = _HEADER.pack(
            _MAGIC,
            state.identity,
            state.page_size,
            state.changes,
            state.writes,
            len(state.sums),
            state.closed,
            state.boot.encode(),
        )
        os.pwrite(self._fd, head + struct.pack(">I", zlib.crc32(head)), 0)
