"""Compression of streams: detection by the first bytes, and decompressing readers."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from ketch.errors import InvalidArgument
from ketch.storage.archive.zstdframes import WholeFrames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.storage.archive.tar import Source

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)


class Peekable(io.RawIOBase):
    """A stream with `peek`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._head = b""

    def peek(self, n: int) -> bytes:
        """The next ``n`` bytes (fewer at the end), still to be read."""
        while len(self._head) < n and (chunk := self.source.read(n - len(self._head))):
            self._head += chunk
        return self._head[:n]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self.source.read(len(buffer))
        if self._head:
            self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def kind(head: bytes) -> str:
    """``gzip``, ``zstd``, ``xz``, ``bzip2`` or ``none`` from a stream's first six bytes."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


@contextmanager
def reader(source: Source, what: str) -> Iterator[IO[bytes]]:
    """A decompressing reader of ``source`` (InvalidArgument, with the name ``what``, for broken data)."""
    peekable: Any = Peekable(source)
    name = kind(peekable.peek(6))
    errors: tuple[Any, ...] = (EOFError, OSError, ValueError)
    stream: Any
    if name == "gzip":
        from isal import igzip, isal_zlib

        errors = (*errors, isal_zlib.error)
        stream = igzip.IGzipFile(  # type: ignore[no-untyped-call]
            fileobj=io.BufferedReader(peekable, 1 << 17), mode="rb"
        )
    elif name == "zstd":
        import zstandard

        errors = (*errors, zstandard.ZstdError)
        whole: Any = WholeFrames(peekable)
        stream = zstandard.ZstdDecompressor().stream_reader(whole, read_size=1 << 17, read_across_frames=True)
    elif name == "xz":
        import lzma

        from ketch.storage.archive.xz import Xz

        errors = (*errors, lzma.LZMAError)
        stream = io.BufferedReader(Xz(peekable), 1 << 17)
    elif name == "bzip2":
        import bz2

        stream = bz2.BZ2File(io.BufferedReader(peekable, 1 << 17))
    else:
        stream = io.BufferedReader(peekable, 1 << 17)
    message = f"{what}: broken {name} stream" if name != "none" else f"read {what}"
    try:
        yield cast("IO[bytes]", Guarded(stream, errors, message))
    finally:
        stream.close()  # its buffers go now, and not when the collector finds an error's traceback


class Guarded(io.RawIOBase):
    """A reader that turns the decoder's own errors, and no others, into InvalidArgument."""

    def __init__(self, stream: IO[bytes], errors: tuple[Any, ...], what: str) -> None:
        self._stream = stream
        self._errors = errors
        self._what = what

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except self._errors as e:
            raise InvalidArgument(f"{self._what}: {e}", hint="the archive is damaged or cut short") from e

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
