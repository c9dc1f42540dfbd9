"""Salvage of rows from a SQLite file that SQLite refuses, page by page, without its trees.

The pages are those of the file, overlaid with the committed frames of its write-ahead log (`wal`) and with what is
whole behind a broken one.  Each page that is a leaf of a table and is not on the list of free pages gives its rows;
which table they are of, the caller sees from their shape.
Source: https://www.sqlite.org/fileformat2.html, §1.6 b-tree pages, §2.1 record format.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ketch.storage.database import wal

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"SQLite format 3\0"
_LEAF_OF_TABLE = 13
_DEFAULT_PAGE = 4096
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
Row = tuple[Any, ...]


def rows(path: str) -> Iterator[Row]:
    """Every row that can be read, in no order; a page or a row that is broken is left out."""
    pages = _Pages(path)
    for number in sorted(pages.pages):
        if number not in pages.free:
            yield from pages.rows_of(number)


class _Pages:
    def __init__(self, path: str) -> None:
        with open(path, "rb") as f:
            data = f.read()
        self.size = _DEFAULT_PAGE
        reserved = 0
        whole = data.startswith(_MAGIC)
        if whole:
            size = struct.unpack(">H", data[16:18])[0]
            self.size = 65536 if size == 1 else size
            reserved = data[20]
            if self.size < 512 or self.size & (self.size - 1):
                self.size, reserved, whole = _DEFAULT_PAGE, 0, False
        self.usable = self.size - reserved
        size = self.size
        self.pages = {n // size + 1: data[n : n + size] for n in range(0, len(data) - size + 1, size)}
        log = wal.parse(wal.content(path), size)
        self.pages.update(log.pages | log.beyond)
        self.free = self._free_pages() if whole else set()

    def _free_pages(self) -> set[int]:
        """The pages on the free list (§1.5), whose content was deleted."""
        found: set[int] = set()
        trunk = struct.unpack(">I", self.pages.get(1, bytes(100))[32:36])[0]
        while trunk and trunk not in found and trunk in self.pages:
            found.add(trunk)
            page = self.pages[trunk]
            following, number = struct.unpack(">II", page[:8])
            number = min(number, self.usable // 4 - 2)
            found.update(struct.unpack(f">{number}I", page[8 : 8 + 4 * number]))
            trunk = following
        return found

    def rows_of(self, number: int) -> Iterator[Row]:
        """The rows of one page; none when it is no leaf of a table."""
        page = self.pages[number]
        start = 100 if number == 1 else 0
        if page[start] != _LEAF_OF_TABLE:
            return
        cells = struct.unpack(">H", page[start + 3 : start + 5])[0]
        for index in range(min(cells, self.usable // 4)):
            pointer = start + 8 + 2 * index
            try:
                at = struct.unpack(">H", page[pointer : pointer + 2])[0]
                yield _record(self._payload(page, at))
            except (struct.error, IndexError, KeyError, ValueError):
                continue

    def _payload(self, page: bytes, at: int) -> bytes:
        """A cell's payload, with its overflow pages."""
        length, at = _varint(page, at)
        _, at = _varint(page, at)
        if length > len(self.pages) * self.size:
            raise ValueError("longer than the file")
        most, least = self.usable - 35, (self.usable - 12) * 32 // 255 - 23
        local = length
        if length > most:
            local = least + (length - least) % (self.usable - 4)
            local = local if local <= most else least
        payload = bytearray(page[at : at + local])
        following = struct.unpack(">I", page[at + local : at + local + 4])[0] if length > local else 0
        while len(payload) < length:
            overflow = self.pages[following]
            payload += overflow[4 : 4 + min(self.usable - 4, length - len(payload))]
            following = struct.unpack(">I", overflow[:4])[0]
        return bytes(payload)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it)."""
    value = 0
    for n in range(9):
        byte = data[at + n]
        if n == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError("varint")


def _record(payload: bytes) -> Row:
    header, at = _varint(payload, 0)
    kinds = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        width = (kind - 12) // 2 if kind >= 12 else 8 if kind == 7 else _WIDTHS.get(kind, 0)
        raw = payload[at : at + width]
        if len(raw) != width or kind in (10, 11):
            raise ValueError("record")
        at += width
        values.append(_value(kind, raw))
    return tuple(values)


def _value(kind: int, raw: bytes) -> Any:
    if kind >= 12:
        return raw.decode() if kind % 2 else raw
    if kind == 7:
        return struct.unpack(">d", raw)[0]
    return {0: None, 8: 0, 9: 1}[kind] if kind in (0, 8, 9) else int.from_bytes(raw, "big", signed=True)
