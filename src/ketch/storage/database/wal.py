"""The write-ahead log of a SQLite database, read without SQLite: valid frames, and those after a broken one.

SQLite itself reads up to the first frame whose checksum is wrong and takes the rest for what a crash cut off.  That is
so when nothing whole comes behind it; frames behind a broken one say that the log was damaged later.
Source: https://www.sqlite.org/fileformat2.html, §4 the write-ahead log.
"""

from __future__ import annotations

import struct

from msgspec import Struct, field

_MAGIC = 0x377F0682
HEADER = 32
FRAME_HEADER = 24


class WalFrames(Struct):
    """The content of a log: committed ``pages`` by number, and the database's ``size`` in pages.

    ``whole`` frames have the right checksum, ``committed`` of them belong to finished transactions.  ``beyond`` are the
    pages of whole frames behind a broken one: a crash leaves none.
    """

    pages: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    whole: int = 0
    committed: int = 0
    beyond: dict[int, bytes] = field(default_factory=dict)


def content(path: str) -> bytes:
    """The bytes of the log beside the database ``path``; empty when there is none."""
    try:
        with open(path + "-wal", "rb") as f:
            return f.read()
    except FileNotFoundError:
        return b""


def is_empty(data: bytes) -> bool:
    """Whether the log has no transaction: SQLite writes the header with the first frame."""
    return data[:HEADER] == bytes(min(len(data), HEADER))


def head_is_damaged(head: bytes) -> bool:
    """Whether these 32 bytes are no valid header."""
    if len(head) < HEADER or struct.unpack(">I", head[:4])[0] & ~1 != _MAGIC:
        return True
    order = ">" if struct.unpack(">I", head[:4])[0] & 1 else "<"
    return _checksum(head[:24], (0, 0), order) != struct.unpack(">II", head[24:32])


def parse(data: bytes, page_size: int) -> WalFrames:
    """Parse a log with pages of that size.

    When its head is broken the first frame's salt tells which frames are of one age, and no sum can be checked.
    """
    log = WalFrames()
    if len(data) < HEADER + FRAME_HEADER or is_empty(data):
        return log
    strict = not head_is_damaged(data[:HEADER])
    order = ">" if struct.unpack(">I", data[:4])[0] & 1 else "<"
    sums = struct.unpack(">II", data[24:32]) if strict else (0, 0)
    salt = data[16:24] if strict else data[HEADER + 8 : HEADER + 16]
    step = FRAME_HEADER + page_size
    pending: dict[int, bytes] = {}
    at = HEADER
    while at + step <= len(data) and data[at + 8 : at + 16] == salt:
        head, page = data[at : at + FRAME_HEADER], data[at + FRAME_HEADER : at + step]
        if strict:
            sums = _checksum(page, _checksum(head[:8], sums, order), order)
            if sums != struct.unpack(">II", head[16:24]):
                break
        number, commit = struct.unpack(">II", head[:8])
        pending[number] = page
        log.whole += 1
        if commit:
            log.pages.update(pending)
            log.committed, log.size = log.whole, commit
            pending = {}
        at += step
    if strict:
        log.beyond = _beyond(data, at + step, step, salt, order)
    return log


def _beyond(data: bytes, at: int, step: int, salt: bytes, order: str) -> dict[int, bytes]:
    """The pages of valid frames from ``at`` on, each checked against the checksum in the frame before."""
    found: dict[int, bytes] = {}
    for start in range(at, len(data) - step + 1, step):
        head = data[start : start + FRAME_HEADER]
        if head[8:16] != salt:
            continue
        before = struct.unpack(">II", data[start - step + 16 : start - step + 24])
        sums = _checksum(data[start + FRAME_HEADER : start + step], _checksum(head[:8], before, order), order)
        if sums == struct.unpack(">II", head[16:24]):
            found[struct.unpack(">I", head[:4])[0]] = data[start + FRAME_HEADER : start + step]
    return found


def length(data: bytes, page_size: int) -> int:
    """The length of the log's frames, valid or not, that belong to its header."""
    if len(data) < HEADER or is_empty(data):
        return 0
    at, step = HEADER, FRAME_HEADER + page_size
    while data[at + 8 : at + 16] == data[16:24]:
        at += step
    return min(at, len(data))


def page_numbers(data: bytes, frames: int, page_size: int) -> set[int]:
    """The page numbers of the first ``frames`` frames of a log."""
    step = FRAME_HEADER + page_size
    return {struct.unpack_from(">I", data, HEADER + n * step)[0] for n in range(frames)}


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """The log's running checksum (§4.2)."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
