"""Reading of the files of a ``json-file`` log, Ketch's own and those that dockerd wrote.

The newest file may be growing and the log may be rotated while it is read; rotated files may be compressed.
A line that is no log message, or only half of one, is left out.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ketch.notation import moments

if TYPE_CHECKING:
    from collections.abc import Iterator

    Position = tuple[int, int]  # number of the file among those opened, offset

_BLOCK = 1 << 20
_CHUNK = 1 << 16
_PATIENCE = 64


class LogEntry(msgspec.Struct):
    """One message; ``time`` as it is written."""

    log: str
    stream: str = "stdout"
    time: str = ""


_decoder = msgspec.json.Decoder(LogEntry)


def entries(block: bytes) -> list[LogEntry]:
    """The messages in a block of lines."""
    try:
        return _decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = []
        for line in block.split(b"\n"):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                found.append(_decoder.decode(line))
        return found


def nanoseconds(text: str) -> int:
    """RFC 3339 → ns since the epoch; 0 for what is no time."""
    return moments.rfc3339(text) or 0


class Times:
    """`nanoseconds` with a cache of the last second."""

    def __init__(self) -> None:
        self._prefix, self._base = "", 0

    def __call__(self, text: str) -> int:
        if text[:19] == self._prefix and text[-1:] == "Z" and text[19:20] == ".":
            digits = text[20:-1]
            if digits.isdecimal() and len(digits) <= 9:
                return self._base + int(digits.ljust(9, "0"))
        at = nanoseconds(text)
        self._prefix, self._base = (text[:19], at - at % 1_000_000_000) if text[-1:] == "Z" else ("", 0)
        return at


def names(path: str) -> list[str]:
    """The files that exist, oldest first; of a file and its compressed copy the first."""
    directory, base = os.path.split(path)
    pattern = re.compile(re.escape(base) + r"(?:\.(\d+)(\.gz)?)?\Z")
    found: dict[int, str] = {}
    for entry in sorted(os.listdir(directory) if os.path.isdir(directory) else (), reverse=True):
        if match := pattern.match(entry):
            found[-int(match[1] or 0)] = entry  # without .gz comes last
    return [os.path.join(directory, found[number]) for number in sorted(found)]


class JsonFiles:
    """The files of the log, opened, oldest first, with a reading position; blocking; ``close`` it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reading = threading.Lock()
        self._closed = False
        self._fds: list[int] = []
        self._number = self._offset = 0
        for _ in range(_PATIENCE):
            before = names(path)
            self._fds = _open_all(before)
            if (
                len(self._fds) == len(before)
                and names(path) == before
                and (not before or _is_newest(self._fds[-1], path, before))
            ):
                break
            self._close_all()
        else:
            self._fds = _open_all(names(path))  # it rotates as fast as we look: better a gap than nothing

    def close(self) -> None:
        """Close every file, also when another thread is in the middle of `next`."""
        with self._reading:
            self._closed = True
            self._close_all()

    def _close_all(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def seek(self, position: Position) -> None:
        """Set the reading position."""
        self._number, self._offset = position

    @property
    def end(self) -> Position:
        """The position behind everything."""
        if not self._fds:
            return (0, 0)
        return (len(self._fds) - 1, os.fstat(self._fds[-1]).st_size)

    def next(self) -> bytes:
        """The next block of whole lines, also of new files; empty at the end."""
        with self._reading:
            return b"" if self._closed else self._next()

    def _next(self) -> bytes:
        while self._number < len(self._fds) or self._find_newer():
            block = _lines(self._fds[self._number], self._offset)
            if not block and self._number == len(self._fds) - 1:
                if not self._find_newer():
                    return b""
                block = _lines(self._fds[self._number], self._offset)  # what was written before it was rotated
            if block:
                self._offset += len(block)
                return block
            self._number, self._offset = self._number + 1, 0
        return b""

    def _find_newer(self) -> bool:
        """Open the files that are newer than the last open one."""
        last = self._fds[-1] if self._fds else -1
        with suppress(FileNotFoundError):
            if last >= 0 and _same(last, self._path):
                return False
        for _ in range(_PATIENCE):
            before = names(self._path)
            fresh, complete = _newer(before, last)
            if complete and names(self._path) == before and (not fresh or _is_newest(fresh[-1], self._path, before)):
                break
            for fd in fresh:
                os.close(fd)
        else:
            fresh, _ = _newer(names(self._path), last)  # it rotates as fast as we look: better a gap than nothing
        self._fds += fresh
        return bool(fresh)

    # -- where to begin --------------------------------------------------------------------------

    def since(self, since_ns: int) -> Position:
        """A position at or before the first message that is not older: whole files are left out."""
        for number in range(len(self._fds) - 1, -1, -1):
            for _, entry in _backwards(self._fds[number]):
                if nanoseconds(entry.time) < since_ns:
                    return (number + 1, 0) if number + 1 < len(self._fds) else (number, 0)
                break
        return (0, 0)

    def tail(self, lines: int, wanted: tuple[bool, bool, bool], until_ns: int) -> Position:
        """The position of the last ``lines`` lines."""
        counted, newest = 0, [True, True, True]
        for number in range(len(self._fds) - 1, -1, -1):
            for behind, entry in _backwards(self._fds[number]):
                stream = 2 if entry.stream == "stderr" else 1
                if not wanted[stream] or (until_ns and nanoseconds(entry.time) > until_ns):
                    continue
                # A stream that stops without a newline ends in a line all the same.
                counted += entry.log.endswith("\n") or newest[stream]
                newest[stream] = False
                if counted > lines:
                    return (number, behind)
        return (0, 0)


def _is_newest(fd: int, path: str, paths: list[str]) -> bool:
    """Whether this is the file that is written to, or there is none at the moment."""
    with suppress(FileNotFoundError):
        return paths[-1] != path or _same(fd, path)
    return False


def _newer(paths: list[str], last: int) -> tuple[list[int], bool]:
    """The files after ``last`` (-1: all), opened, and whether each of them was there still."""
    fresh: list[int] = []
    for path in reversed(paths):
        if last >= 0 and not path.endswith(".gz") and _is_file(last, path):
            break
        opened = _open_all([path])
        if not opened:
            return fresh, False
        if last >= 0 and path.endswith(".gz") and _first_line(opened[0]) == _first_line(last):
            os.close(opened[0])
            break
        fresh = opened + fresh
    return fresh, True


def _open_all(paths: list[str]) -> list[int]:
    fds = []
    for path in paths:
        try:
            fds.append(_unpacked(path) if path.endswith(".gz") else os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            break
    return fds


def _unpacked(path: str) -> int:
    """A compressed file's content, in a file without a name."""
    unpacker = zlib.decompressobj(wbits=31)
    with open(path, "rb") as packed, tempfile.TemporaryFile(dir=os.path.dirname(path)) as plain:
        while data := packed.read(_CHUNK):
            plain.write(unpacker.decompress(data))
        plain.flush()
        return os.dup(plain.fileno())


def _same(fd: int, path: str) -> bool:
    return os.fstat(fd).st_ino == os.stat(path).st_ino


def _is_file(fd: int, path: str) -> bool:
    with suppress(FileNotFoundError):
        return _same(fd, path)
    return False


def _first_line(fd: int) -> bytes:
    return _lines(fd, 0).partition(b"\n")[0]


def _lines(fd: int, offset: int) -> bytes:
    """Whole lines from an offset on, about 1 MiB, more when one is longer."""
    size = _BLOCK
    while True:
        data = os.pread(fd, size, offset)
        end = data.rfind(b"\n") + 1
        if end or len(data) < size:
            return data[:end]
        size *= 4


def _backwards(fd: int) -> Iterator[tuple[int, LogEntry]]:
    """Messages with the positions after them, from the newest to the oldest."""
    end, kept = os.fstat(fd).st_size, b""
    while end > 0:
        start = max(end - _CHUNK, 0)
        data = os.pread(fd, end - start, start) + kept
        first = data.find(b"\n") + 1 if start else 0
        kept, end = data[:first], start
        behind = start + len(data)
        for line in reversed(data[first:].splitlines(keepends=True)):
            for entry in entries(line):
                yield behind, entry
            behind -= len(line)
