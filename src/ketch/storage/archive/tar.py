"""A reader of tar streams: headers as members, contents as chunks, errors for broken ones.

ustar, GNU (long names, base-256 numbers, old sparse files) and pax (long names, exact times, extended
attributes, sparse files 0.0, 0.1 and 1.0).  ``tarfile`` takes a damaged header in the middle of an archive
for its end, and spends more time on a header than the kernel on the file; hence a reader of our own.
Source: POSIX.1-2017 pax §"ustar Interchange Format", GNU tar manual §"Basic Tar Format" and §"Sparse Formats".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from ketch.errors import InvalidArgument, UnclassifiedArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO = range(7)

_BLOCK = 512
_READ = 1 << 18
_MAX_HEADER = 1 << 20  # of the map of a sparse file
_MOST_GLOBAL = 1000  # records: each member is looked up in them
_MAX_EXTENDED = _MAX_HEADER + 64 * _BLOCK  # of one member's long names and pax records, or of all global ones
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_ZEROS = bytes(_BLOCK)
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"S": FILE,
    b"1": LINK,
    b"2": SYMLINK,
    b"3": CHAR,
    b"4": BLOCK,
    b"5": DIRECTORY,
    b"D": DIRECTORY,
    b"6": FIFO,
}
_XATTR = b"SCHILY.xattr."
_HINT = "it is not a tar archive, or it is damaged or cut short"
Records = list[tuple[bytes, bytes]]
Extents = list[tuple[int, int]]


class Source(Protocol):
    """An object that bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes: ...


class Member:
    """One entry: ``size`` is that of the file it makes; ``extents`` (offset, length) is set for sparse files."""

    __slots__ = (
        "extents",
        "gid",
        "kind",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "uid",
        "xattrs",
    )

    name: str
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str
    major: int
    minor: int
    xattrs: dict[str, bytes] | None
    extents: Extents | None


class _Extended:
    """The data of the extended headers before a member, and their size."""

    __slots__ = ("link", "name", "records", "size")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.records: Records = []
        self.size = 0


class TarReader:
    """An iterator over members; ``chunks`` gives the current one's content, of which the rest is skipped.

    Raises InvalidArgument for anything that is no whole tar.  The source's own errors pass through.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self._left = 0  # bytes of the current member's stored content
        self._padding = 0
        self._global: dict[bytes, bytes] = {}
        self._global_size = 0

    # -- bytes ---------------------------------------------------------------------------------

    def _fill(self) -> bool:
        self._buffer = self._source.read(_READ)
        self._at = 0
        return bool(self._buffer)

    def _take(self, n: int) -> bytes:
        """Up to ``n`` bytes; fewer only at the end of the stream."""
        at = self._at
        data = self._buffer[at : at + n]
        self._at = at + len(data)
        if len(data) == n:
            return data
        parts = [data]
        missing = n - len(data)
        while missing and self._fill():
            data = self._buffer[:missing]
            self._at = len(data)
            missing -= len(data)
            parts.append(data)
        return b"".join(parts)

    def _exactly(self, n: int, what: str) -> bytes:
        data = self._take(n)
        if len(data) < n:
            raise InvalidArgument(f"read archive: it ends in the middle of {what}", hint=_HINT)
        return data

    def _stored(self, name: str) -> Iterator[memoryview]:
        """The rest of the current member's stored bytes."""
        while self._left:
            if self._at == len(self._buffer) and not self._fill():
                raise InvalidArgument(f"read archive: it ends in the middle of `{name}`", hint=_HINT)
            view = memoryview(self._buffer)[self._at : self._at + self._left]
            self._at += len(view)
            self._left -= len(view)
            yield view

    def _finish(self, name: str) -> None:
        for _ in self._stored(name):
            pass
        if self._padding:
            self._exactly(self._padding, f"`{name}`")
            self._padding = 0

    # -- members -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Member]:
        name = "the archive"
        first = True
        while True:
            self._finish(name)
            member = self._next(first)
            if member is None:
                return
            yield member
            name, first = member.name, False

    def _next(self, first: bool) -> Member | None:
        """The next member, with its extended headers applied; None at the end."""
        extended = _Extended()
        while (block := self._header(first)) is not None:
            first = False
            fields = _checked(block)
            size = _number(fields[4])
            if fields[7] not in b"LKxgXV":
                return self._member(block, fields, size, extended)
            self._extend(extended, fields[7], size)
        return None

    def _header(self, first: bool) -> bytes | None:
        """The next header block; None at the end."""
        block = self._take(_BLOCK)
        if not block and not first:
            return None  # some writers leave out the closing zeros
        if len(block) < _BLOCK:
            why = "it ends in the middle of a header" if block else "it is empty"
            raise InvalidArgument(f"read archive: {why}", hint=_HINT)
        if block != _ZEROS:
            return block
        if self._take(_BLOCK).strip(b"\0"):
            raise InvalidArgument("read archive: there is something behind its end mark", hint=_HINT)
        return None

    def _extend(self, extended: _Extended, kind: bytes, size: int) -> None:
        """Read the data of an extended header, into ``extended`` or the global values."""
        extended.size += size + _BLOCK
        if extended.size > _MAX_EXTENDED:  # each header may be of any size, and there may be any number of them
            raise InvalidArgument(f"read archive: extended headers of {extended.size} bytes", hint=_HINT)
        data = self._exactly(size + -size % _BLOCK, "an extended header")[:size]
        if kind == b"L":
            extended.name = data.rstrip(b"\0")
        elif kind == b"K":
            extended.link = data.rstrip(b"\0")
        elif kind == b"g":
            self._global.update(_records(data))
            self._global_size += size
            if self._global_size > _MAX_EXTENDED or len(self._global) > _MOST_GLOBAL:
                raise InvalidArgument("read archive: too many global headers", hint=_HINT)
        elif kind != b"V":
            extended.records += _records(data)

    def _member(self, block: bytes, fields: tuple[bytes, ...], size: int, extended: _Extended) -> Member:
        member = Member()
        kind = _KINDS.get(fields[7])
        name = fields[0].partition(b"\0")[0]
        if fields[9] == b"ustar\0" and fields[15][0]:
            name = fields[15].partition(b"\0")[0] + b"/" + name
        if extended.name is not None:
            name = extended.name
        link = fields[8].partition(b"\0")[0] if extended.link is None else extended.link
        records = extended.records
        if kind is None:
            raise InvalidArgument(f"extract `{_text(name)}`: unknown type {fields[7]!r} in archive", hint=_HINT)
        member.mode = _number(fields[1]) & 0o7777
        member.uid, member.gid = _number(fields[2]), _number(fields[3])
        member.mtime_ns = _number(fields[5]) * 1_000_000_000
        member.major, member.minor = (_number(fields[13]), _number(fields[14])) if kind in (CHAR, BLOCK) else (0, 0)
        member.xattrs = member.extents = None
        stored = size
        if self._global or records:
            known = {**self._global, **dict(records)}
            name, link = known.get(b"path", name), known.get(b"linkpath", link)
            stored = _decimal(known, b"size", size)
            member.uid, member.gid = _decimal(known, b"uid", member.uid), _decimal(known, b"gid", member.gid)
            if b"mtime" in known:
                member.mtime_ns = _nanoseconds(known[b"mtime"])
            member.xattrs = {_text(k[len(_XATTR) :]): v for k, v in known.items() if k.startswith(_XATTR)} or None
        if fields[7] in b"0\0" and name.endswith(b"/"):  # the whole name: a long one's beginning may end so, too
            kind = DIRECTORY  # as before POSIX
        member.kind = kind
        member.name, member.linkname = _text(name), _text(link)
        for value, limit in (
            (stored, 1 << 63),
            (member.uid, 1 << 32),
            (member.gid, 1 << 32),
            (member.major, 1 << 12),
            (member.minor, 1 << 20),
            (abs(member.mtime_ns), 1 << 92),
        ):
            if not 0 <= value < limit:
                raise InvalidArgument(f"extract `{_text(name)}`: {value} is out of range in its header", hint=_HINT)
        self._left = stored if kind == FILE else 0
        self._padding = -self._left % _BLOCK
        member.size = self._left
        if fields[7] == b"S":
            self._old_sparse(member, block)
        elif records and kind == FILE and any(key.startswith(b"GNU.sparse.") for key, _ in records):
            self._pax_sparse(member, records)
        if "\0" in member.name or "\0" in member.linkname or not member.name:
            raise InvalidArgument(f"extract {member.name!r}: NUL in a name, or none, in archive")
        return member

    def chunks(self, member: Member) -> Iterator[tuple[int, memoryview]]:
        """(offset in the file, bytes) of the current member's content, in order."""
        if member.extents is None:
            offset = 0
            for view in self._stored(member.name):
                yield offset, view
                offset += len(view)
            return
        extents = iter(member.extents)
        offset, left = 0, 0
        for view in self._stored(member.name):
            while len(view):
                while not left:
                    offset, left = next(extents, (0, len(view)))
                yield offset, view[:left]
                done = min(left, len(view))
                view, offset, left = view[done:], offset + done, left - done

    # -- sparse files --------------------------------------------------------------------------

    def _old_sparse(self, member: Member, block: bytes) -> None:
        extents = _entries(block, 386, 4)
        member.size = _number(block[483:495])
        more = block[482]
        while more:
            if len(extents) > _MAX_HEADER // 24:
                raise InvalidArgument(f"extract `{member.name}`: too many holes", hint=_HINT)
            block = self._exactly(_BLOCK, f"the map of `{member.name}`")
            extents += _entries(block, 0, 21)
            more = block[504]
        self._set_extents(member, extents)

    def _pax_sparse(self, member: Member, records: Records) -> None:
        known = dict(records)
        member.name = _text(known.get(b"GNU.sparse.name", member.name.encode("utf-8", "surrogateescape")))
        if known.get(b"GNU.sparse.major") == b"1":
            member.size = _decimal(known, b"GNU.sparse.realsize", 0)
            numbers = self._sparse_map(member)
        else:
            member.size = _decimal(known, b"GNU.sparse.size", member.size)
            text = known.get(b"GNU.sparse.map")
            numbers = (
                [_integer(n) for n in text.split(b",") if n]
                if text is not None
                else [_integer(v) for k, v in records if k in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
            )
        self._set_extents(member, list(zip(numbers[::2], numbers[1::2], strict=False)))

    def _sparse_map(self, member: Member) -> list[int]:
        """Version 1.0: the content begins with the map, in lines of decimal digits, padded to blocks."""
        text = b""
        lines: list[bytes] = []
        while not lines or len(lines) <= 2 * _integer(lines[0]):
            if len(text) > _MAX_HEADER or self._left < _BLOCK:
                raise InvalidArgument(f"extract `{member.name}`: broken map of a sparse file", hint=_HINT)
            text += self._exactly(_BLOCK, f"the map of `{member.name}`")
            self._left -= _BLOCK
            lines = text.split(b"\n")[:-1]
        return [_integer(line) for line in lines[1 : 1 + 2 * _integer(lines[0])]]

    def _set_extents(self, member: Member, extents: Extents) -> None:
        end = 0
        for offset, length in extents:
            if offset < end or offset + length > member.size:
                raise InvalidArgument(f"extract `{member.name}`: broken map of a sparse file", hint=_HINT)
            end = offset + length
        if sum(length for _, length in extents) != self._left:
            raise InvalidArgument(f"extract `{member.name}`: its map and its content differ in size", hint=_HINT)
        member.extents = [e for e in extents if e[1]]


def _checked(block: bytes) -> tuple[bytes, ...]:
    """The header's fields; its checksum is that of all bytes with its own taken as spaces (signed in old tars)."""
    fields: tuple[bytes, ...] = _HEADER.unpack(block)
    try:
        stored = int(fields[6].strip(b"\0 "), 8)
    except ValueError:
        stored = -1
    unsigned = sum(block) - sum(fields[6]) + 256
    if stored != unsigned and stored != unsigned - 256 * sum(b > 127 for b in block[:148] + block[156:]):
        raise UnclassifiedArgument("archive/tar: invalid tar header", hint=_HINT)
    return fields


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArgument(f"read archive: {field!r} is not a number in a header", hint=_HINT) from None


def _integer(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidArgument(f"read archive: {text[:40]!r} is not a number in a header", hint=_HINT)
    return int(text)


def _decimal(known: dict[bytes, bytes], key: bytes, default: int) -> int:
    text = known.get(key)
    return default if text is None or not text else _integer(text)


def _nanoseconds(text: bytes) -> int:
    """Decimal seconds, kept exact: a float would round them."""
    sign, digits = (-1, text[1:]) if text.startswith(b"-") else (1, text)
    seconds, _, fraction = digits.partition(b".")
    return sign * (_integer(seconds) * 1_000_000_000 + _integer(fraction[:9].ljust(9, b"0")))


def _records(data: bytes) -> Records:
    """pax records, ``length key=value`` and a newline each; values may hold any byte."""
    result: Records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 21)
        length = _integer(data[at:space]) if space > at else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not length or at + length > len(data) or not record.endswith(b"\n") or not equals:
            raise InvalidArgument("read archive: a broken pax header", hint=_HINT)
        result.append((key, value))
        at += length
    return result


def _entries(block: bytes, at: int, count: int) -> Extents:
    spans = (block[i : i + 24] for i in range(at, at + 24 * count, 24))
    return [(_number(s[:12]), _number(s[12:])) for s in spans if s[12]]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
