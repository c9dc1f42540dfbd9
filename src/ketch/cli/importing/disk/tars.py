"""Tar archives written as streams, of files whose sizes are known."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHUNK = 1 << 18


class File(NamedTuple):
    """A file of an archive: its name and size, and what makes its content when it is its turn."""

    name: str
    size: int
    content: Callable[[], Iterator[bytes]]


def of_bytes(name: str, data: bytes) -> File:
    """A file with this content."""
    return File(name, len(data), lambda: iter((data,)))


def of_file(name: str, path: str, size: int) -> File:
    """A file with the content of a file of this machine."""
    return File(name, size, lambda: file_chunks(path))


def file_chunks(path: str) -> Iterator[bytes]:
    """The content of a file (DataLoss)."""
    try:
        with open(path, "rb") as f:
            while data := f.read(_CHUNK):
                yield data
    except OSError as e:
        raise DataLoss(f"read {path}: {e.strerror}") from e


def stream(entries: Iterable[File]) -> Iterator[bytes]:
    """The archive of these files (DataLoss: one has not the size that it should have)."""
    for entry in entries:
        header = tarfile.TarInfo(entry.name)
        header.size = entry.size
        yield header.tobuf(tarfile.GNU_FORMAT)
        written = 0
        for chunk in entry.content():
            written += len(chunk)
            yield chunk
        if written != entry.size:
            raise DataLoss(f"read {entry.name}: it has {written} bytes of {entry.size}")
        yield bytes(-written % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
