"""Compression of layers: which there are, at which levels, and their writers, whose output depends on the input alone.

A layer's digest names it, so the same tar gives the same blob by one version of the compressor, however it was cut
into writes (see `gzipwriter`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ketch.errors import InvalidArgument, Unimplemented
from ketch.oci import manifest as oci
from ketch.storage.archive.gzipwriter import GzipWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[bytes | memoryview], object]

UNCOMPRESSED, GZIP, ZSTD = "uncompressed", "gzip", "zstd"
_MEDIA_TYPES = {UNCOMPRESSED: oci.LAYER, GZIP: oci.LAYER_GZIP, ZSTD: oci.LAYER_ZSTD}
_MOST = {UNCOMPRESSED: 0, GZIP: 9, ZSTD: 22}
_ZSTD_LEVEL = 3
_PIECE = 1 << 17


class LayerPacker(Protocol):
    """A writer that passes what it has compressed to a function; ``finish`` completes the stream."""

    def write(self, data: Any) -> int:
        """Compress any buffer of bytes; returns its length."""
        ...

    def finish(self) -> None:
        """Flush, and write what ends the stream."""
        ...


class Compression(msgspec.Struct, frozen=True):
    """A compression: ``gzip``, ``zstd`` or ``uncompressed``; level -1 is the usual one."""

    kind: str = GZIP
    level: int = -1

    @property
    def media_type(self) -> str:
        """The media type of a layer."""
        return _MEDIA_TYPES[self.kind]

    def packer(self, write: Write) -> LayerPacker:
        """A new writer."""
        if self.kind == UNCOMPRESSED:
            return _PlainWriter(write)
        if self.kind == ZSTD:
            return ZstdWriter(write, _ZSTD_LEVEL if self.level < 0 else self.level)
        return GzipWriter(write, self.level)

    def name(self) -> str:
        """A name of what makes the same bytes of the same tar: compressor, its version, level."""
        if self.kind == ZSTD:
            import zstandard

            version = ".".join(map(str, zstandard.ZSTD_VERSION))
        elif self.kind == GZIP and self.level < 0:
            import isal

            version = f"isal {isal.__version__}"
        else:
            import zlib

            version = zlib.ZLIB_RUNTIME_VERSION
        return f"{self.kind} {version} {self.level}"


def compression(kind: str, level: str = "") -> Compression:
    """The compression of a name and a level as they are asked for (InvalidArgument, Unimplemented)."""
    if kind == "estargz":
        raise Unimplemented("compression estargz: Ketch writes no layers with an index", hint="use zstd or gzip")
    if kind not in _MEDIA_TYPES:
        raise InvalidArgument(f"unsupported compression type {kind}", hint="it is gzip, zstd or uncompressed")
    if not level:
        return Compression(kind)
    if not (level.isascii() and level.isdigit()):
        raise InvalidArgument(f"non-integer value {level} specified for compression-level")
    if int(level[:4]) > _MOST[kind]:
        raise InvalidArgument(f"compression-level {level[:20]}: of {kind} it is at most {_MOST[kind]}")
    return Compression(kind, int(level))


class _PlainWriter:
    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, data: Any) -> int:
        self._write(data)
        return len(data)

    def finish(self) -> None:
        """Nothing is left to be written."""


class ZstdWriter:
    """A compressor of one frame (RFC 8878) with the content's checksum."""

    def __init__(self, write: Write, level: int) -> None:
        import zstandard

        self._write = write
        self._chunker = zstandard.ZstdCompressor(level=level, write_checksum=True).chunker(chunk_size=_PIECE)

    def write(self, data: Any) -> int:
        """Compress any buffer of bytes; returns its length."""
        for piece in self._chunker.compress(data):
            self._write(piece)
        return len(data)

    def finish(self) -> None:
        """Flush, and end the frame."""
        for piece in self._chunker.finish():  # type: ignore[no-untyped-call]
            self._write(piece)
