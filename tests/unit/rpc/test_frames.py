"""Frames wherever they are cut, headers, timeouts, statuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.rpc.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME,
    ConnectionFailure,
    FrameKind,
    FrameReader,
    StreamFailure,
    frame,
    header_frames,
    without_padding,
)
from ketch.rpc.metadata import decode_binary, decode_timeout, encode_binary, encode_timeout, text_headers
from ketch.rpc.status import Code, RpcError, error_of, trailers_of

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, (1 << 31) - 1), st.binary(max_size=300)),
    max_size=8,
)


def read(reader, data):
    return [(f.kind, f.flags, f.stream, bytes(f.content)) for f in reader.read(data)]


@given(FRAMES, st.lists(st.integers(0, 3000), max_size=10))
def test_frames_are_found_wherever_they_are_cut(frames, cuts):
    data = b"".join(frame(*one) for one in frames)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader, found = FrameReader(), []
    for begin, end in zip(places, places[1:], strict=False):
        found += read(reader, data[begin:end])
    assert found == frames


@given(FRAMES)
def test_frames_are_found_byte_by_byte(frames):
    reader, found = FrameReader(), []
    for byte in b"".join(frame(*one) for one in frames):
        found += read(reader, bytes([byte]))
    assert found == frames


@pytest.mark.parametrize("cut", [1, 8, 9, 20])
def test_a_frame_that_is_too_long_is_refused_before_it_is_there(cut):
    data = frame(FrameKind.DATA, 0, 1, bytes(FRAME + 1))
    reader = FrameReader()
    with pytest.raises(ConnectionFailure, match="16385"):
        for piece in (data[:cut], data[cut:100]):
            read(reader, piece)


@given(st.binary(max_size=2000))
def test_any_bytes_are_frames_or_refused(data):
    try:
        for one in FrameReader().read(data):
            without_padding(one)
    except ConnectionFailure:
        pass


@given(st.binary(max_size=500), st.booleans(), st.integers(1, 60))
def test_a_block_of_headers_in_as_many_frames_as_it_needs(block, end, largest):
    reader = FrameReader()
    found = read(reader, b"".join(header_frames(5, block, end=end, largest=largest)))
    assert b"".join(content for *_, content in found) == block
    assert [kind for kind, *_ in found] == [FrameKind.HEADERS] + [FrameKind.CONTINUATION] * (len(found) - 1)
    assert [bool(flags & END_HEADERS) for _, flags, *_ in found] == [False] * (len(found) - 1) + [True]
    assert bool(found[0][1] & END_STREAM) == end
    assert all(len(content) <= largest for *_, content in found)


@given(st.binary(max_size=100), st.integers(0, 50))
def test_padding_is_taken_off(content, padding):
    padded = frame(FrameKind.DATA, 0x8, 1, bytes([padding]) + content + bytes(padding))
    (one,) = FrameReader().read(padded)
    assert bytes(without_padding(one)) == content


def test_padding_longer_than_its_frame():
    (one,) = FrameReader().read(frame(FrameKind.DATA, 0x8, 1, b"\x05abcd"))
    with pytest.raises(ConnectionFailure, match="padding"):
        without_padding(one)


@given(st.floats(0, 1e9, allow_nan=False))
def test_timeouts_come_back_nearly_as_they_were(seconds):
    found = decode_timeout(encode_timeout(seconds))
    assert found <= min(seconds, 99999999) * (1 + 1e-9)
    assert found >= min(seconds, 99999999) * (1 - 1e-5) - 1e-9


@pytest.mark.parametrize("text", ["", "1", "S", "123456789S", "-1S", "1x", "1 S"])
def test_what_is_no_timeout(text):
    with pytest.raises(RpcError, match="grpc-timeout"):
        decode_timeout(text)


@given(st.binary(max_size=50))
def test_binary_values_come_back(value):
    assert decode_binary(encode_binary(value)) == value


@given(st.text(max_size=60), st.sampled_from([code for code in Code if code is not Code.OK]))
def test_statuses_come_back(text, code):
    trailers = {key: [value] for key, value in trailers_of(RpcError(code, text))}
    assert all(value.isascii() and value.isprintable() for (value,) in trailers.values())
    found = error_of(trailers)
    assert (found.code, found.message) == (code, text.encode("utf-8", "replace").decode())


@pytest.mark.parametrize("status", ["", "x", "-1", "²"])
def test_a_status_that_is_none(status):
    assert error_of({"grpc-status": [status]}).code is Code.UNKNOWN


@pytest.mark.parametrize(
    "raw",
    [[(b"Upper", b"")], [(b"a", b""), (b":path", b"/")], [(b"connection", b"close")], [(b"", b"x")]],
)
def test_headers_that_are_malformed(raw):
    with pytest.raises(StreamFailure):
        text_headers(raw)
