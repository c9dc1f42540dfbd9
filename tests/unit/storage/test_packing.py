"""Compressions of layers: what they write is read again, the same however it was cut; what is asked for is judged."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument, Unimplemented
from ketch.oci import manifest as oci
from ketch.storage.archive import compression as readers
from ketch.storage.archive.packing import Compression, compression

ALL = [Compression(kind, level) for kind, level in (("gzip", -1), ("gzip", 9), ("zstd", -1), ("zstd", 11))]


def packed(how: Compression, pieces: list[bytes]) -> bytes:
    out = bytearray()
    writer = how.packer(out.extend)
    for piece in pieces:
        assert writer.write(piece) == len(piece)
    writer.finish()
    return bytes(out)


@given(st.sampled_from([*ALL, Compression("uncompressed")]), st.lists(st.binary(max_size=200_000), max_size=5))
def test_what_is_written_is_read(how, pieces):
    whole = b"".join(pieces)
    data = packed(how, pieces)
    assert packed(how, [whole]) == data
    if how.kind == "uncompressed":
        assert data == whole
        return
    assert readers.kind(data) == how.kind
    with readers.reader(io.BytesIO(data), "it") as plain:
        assert plain.read() == whole


def test_media_types_and_names():
    assert [one.media_type for one in ALL] == [oci.LAYER_GZIP] * 2 + [oci.LAYER_ZSTD] * 2
    assert len({one.name() for one in ALL}) == len(ALL)


def test_what_is_asked_for():
    assert compression("zstd", "22") == Compression("zstd", 22)
    assert compression("gzip") == Compression()
    for kind, level, message in (
        ("lz4", "", "unsupported compression type lz4"),
        ("gzip", "10", "at most 9"),
        ("zstd", "23", "at most 22"),
        ("zstd", "-1", "non-integer value -1"),
        ("zstd", "9" * 5000, "at most 22"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            compression(kind, level)
    with pytest.raises(Unimplemented, match="estargz"):
        compression("estargz")
