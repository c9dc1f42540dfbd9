"""Layers' compressor: the bytes of a known input, on every Python; pieces do not show; other programs read it."""

from __future__ import annotations

import gc
import gzip
import hashlib
import random
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.storage.archive.gzipwriter import GzipWriter


def compress(*pieces: bytes) -> bytes:
    out = bytearray()
    writer = GzipWriter(out.extend)
    for piece in pieces:
        assert writer.write(piece) == len(piece)
    writer.finish()
    return bytes(out)


def known(size: int) -> bytes:
    """Words in an order that a small generator gives, the same on every machine and Python."""
    words, state = [], 1
    while len(words) * 8 < size:
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        words.append(struct.pack("<Q", state >> 54))
    return b"".join(words)[:size]


def test_a_known_input_has_a_known_digest():
    """A layer that is made again, by another Python, is the same blob.

    Where this fails after an upgrade of isal, layers get other digests from then on: pin isal, or say so to the users.
    """
    data = known(3_000_001)
    assert hashlib.sha256(data).hexdigest()[:16] == "83420eef61a91cad"
    assert (
        hashlib.sha256(compress(data)).hexdigest() == "1051a3b2bedbe438a9a4913fc14273d20a80fa7ab9a4b543cb1742b8b25640ca"
    )


@pytest.mark.parametrize("step", [1000, 10_240, 1 << 17, (1 << 17) + 1, 1 << 20])
def test_how_the_input_is_cut_does_not_show(step):
    data = known(1_500_000)
    assert compress(*(data[n : n + step] for n in range(0, len(data), step))) == compress(data)


@given(st.lists(st.binary(max_size=300_000), max_size=5))
def test_output_is_gzip(pieces):
    assert gzip.decompress(compress(*pieces)) == b"".join(pieces)


def test_header_says_nothing_of_time_or_machine():
    assert compress()[:10] == bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
    assert gzip.decompress(compress()) == b""


def test_any_buffer_is_taken():
    data = random.Random(1).randbytes(400_000)
    assert compress(memoryview(bytearray(data))) == compress(bytearray(data)) == compress(data)


def test_a_writer_that_is_dropped_writes_nothing(monkeypatch):
    """An import that is refused drops its writer: no trailer into a blob that is closed, no complaint at collection."""
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    out = bytearray()
    writer = GzipWriter(out.extend)
    writer.write(b"x" * 10)
    before = len(out)
    del writer
    gc.collect()
    assert (len(out), complaints) == (before, [])
