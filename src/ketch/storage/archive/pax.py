"""Headers of tar members in pax form, made by hand: the same bytes from the same facts, whichever Python runs.

A header says in its own fields what these can hold; a pax header before it has the rest: times that are no whole
seconds, long names and those that are not ASCII, large numbers, extended attributes.
Source: POSIX.1-2017 pax §"pax Header Block" and §"ustar Interchange Format".
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR = b"SCHILY.xattr."
_NAME_MAX = 100
_NUMBER_END, _LONG_NUMBER_END = 8**7, 8**11
_MAGIC = b"ustar\x0000"
_NO_DEVICE = b"0000000\x000000000\x00"
# Name, numbers, checksum, kind, link, magic, names of owner and group, device, prefix: all filled up with zeros.
_FIELDS = struct.Struct("100s48s8s1s100s8s64s16s167s")
_PAX = b"././@PaxHeader"
_BINARY = (b"hdrcharset", b"BINARY")
_NS = 1_000_000_000

Records = list[tuple[bytes, bytes]]
Extents = list[tuple[int, int]]


def header(
    kind: bytes,
    name: bytes,
    numbers: tuple[int, int, int, int, int],
    link: bytes = b"",
    *,
    device: tuple[int, int] | None = None,
    xattrs: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A member's header, and before it, where it is needed, a pax header.

    ``numbers``: mode, owner, group, size, and time in ns; a directory's name ends with ``/``.  ValueError for an
    attribute's name that pax cannot have.
    """
    return _header(kind, name, numbers, link, device, _attributes(xattrs))


def sparse(
    name: bytes, numbers: tuple[int, int, int, int, int], extents: Extents, xattrs: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """The header of a file with holes, and the map of its ``extents`` (offset, length), which are to follow.

    The size in ``numbers`` is that of the whole file.  Source: GNU tar manual §"Sparse Formats", PAX 1.0.
    """
    mode, uid, gid, size, mtime_ns = numbers
    marked = extents if extents and sum(extents[-1]) == size else [*extents, (size, 0)]
    lines = [len(marked), *(number for extent in marked for number in extent)]
    text = b"".join(b"%d\n" % number for number in lines)
    text = text.ljust(len(text) + -len(text) % BLOCK, b"\0")
    stored = len(text) + sum(length for _, length in extents)
    directory, slash, base = name.rpartition(b"/")
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
        *_attributes(xattrs),
    ]
    if not _is_utf8(name):
        records.insert(0, _BINARY)
    alias = b"%b%bGNUSparseFile.0/%b" % (directory, slash, base)
    return _header(FILE, alias, (mode, uid, gid, stored, mtime_ns), b"", None, records) + text


def _attributes(xattrs: Sequence[tuple[bytes, bytes]]) -> Records:
    for key, _ in xattrs:
        if b"=" in key:
            raise ValueError("the name of an extended attribute has an equals sign")
    return [(XATTR + key, value) for key, value in xattrs]


def _header(
    kind: bytes,
    name: bytes,
    numbers: tuple[int, int, int, int, int],
    link: bytes,
    device: tuple[int, int] | None,
    more: Records,
) -> bytes:
    """A member's header, and before it a pax header of these records and of what does not fit."""
    mode, uid, gid, size, mtime_ns = numbers
    records: Records = []
    seconds = mtime_ns // _NS
    if mtime_ns % _NS or not 0 <= seconds < _LONG_NUMBER_END:
        records.append((b"mtime", _decimal(mtime_ns)))
        seconds = min(max(seconds, 0), _LONG_NUMBER_END - 1)
    if len(name) > _NAME_MAX or not name.isascii():
        name = _cut(records, b"path", name)
    if link and (len(link) > _NAME_MAX or not link.isascii()):
        link = _cut(records, b"linkpath", link)
    if uid >= _NUMBER_END or gid >= _NUMBER_END or size >= _LONG_NUMBER_END:
        uid = _number(records, b"uid", uid, _NUMBER_END)
        gid = _number(records, b"gid", gid, _NUMBER_END)
        size = _number(records, b"size", size, _LONG_NUMBER_END)
    records += more
    block = _block(kind, name, b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, seconds), link, device)
    return _pax(records) + block if records else block


def _cut(records: Records, key: bytes, name: bytes) -> bytes:
    """The beginning of a name that its field cannot hold; all of it goes to the records, and whether it is text."""
    if not _is_utf8(name) and _BINARY not in records:
        records.insert(0, _BINARY)
    records.append((key, name))
    return name[:_NAME_MAX]


def _number(records: Records, key: bytes, value: int, end: int) -> int:
    """A number for its field; one that is too large goes to the records."""
    if value < end:
        return value
    records.append((key, b"%d" % value))
    return 0


def _decimal(ns: int) -> bytes:
    """Nanoseconds as pax writes times: a decimal fraction of seconds, as short as it can be."""
    seconds, rest = divmod(abs(ns), _NS)
    text = (b"%d.%09d" % (seconds, rest)).rstrip(b"0") if rest else b"%d" % seconds
    return b"-" + text if ns < 0 else text


def _pax(records: Records) -> bytes:
    """A pax header with its data, padded."""
    data = b"".join([_record(key, value) for key, value in records])
    return _pax_block(len(data)) + data.ljust(len(data) + -len(data) % BLOCK, b"\0")


@functools.lru_cache(256)
def _pax_block(size: int) -> bytes:
    """The header of a pax header of that size; most have one of few."""
    return _block(b"x", _PAX, b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, size, 0), b"", None)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    """``length key=value`` and a newline; the length counts itself."""
    rest = len(key) + len(value) + 3  # space, equals sign, newline
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _block(kind: bytes, name: bytes, numbers: bytes, link: bytes, device: tuple[int, int] | None) -> bytes:
    devices = _NO_DEVICE if device is None else b"%07o\0%07o\0" % device
    # The sum of all bytes, with eight spaces for itself; Adler-32 begins with that of its bytes, which is below 2**16.
    checksum = zlib.adler32(b"".join((name, numbers, kind, link, devices)), _CONSTANT) & 0xFFFF
    return _FIELDS.pack(name, numbers, b"%06o\0 " % checksum, kind, link, _MAGIC, b"", devices, b"")


_CONSTANT = sum(_MAGIC) + 8 * ord(" ")
