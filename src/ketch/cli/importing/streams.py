"""Chunks of bytes as a file, for those who read files."""

from __future__ import annotations

import io
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reader(io.RawIOBase):
    """A file of the bytes that come in chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As many bytes, fewer at the end only."""
        parts, missing = [self._rest], size - len(self._rest)
        while size < 0 or missing > 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        if size < 0:
            self._rest = b""
            return data
        self._rest = data[size:]
        return data[:size]


@contextmanager
def archive_of(chunks: Iterator[bytes], what: str) -> Iterator[tarfile.TarFile]:
    """The archive that comes in chunks, to be read in its order (DataLoss: it breaks off, or is none)."""
    try:
        with tarfile.open(fileobj=Reader(chunks), mode="r|") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as e:
        raise DataLoss(f"read {what}: {e}", hint="try again") from e
