"""From frames to wire bytes: streams, times, lines, tails; checked against a slow and simple reading."""

from __future__ import annotations

import asyncio
import struct
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.engine.aio.streams import LogOptions
from ketch.engine.logs.framed_reader import Formatter, read_logs, with_rest
from ketch.engine.logs.json_reader import read_json_logs
from ketch.runtime.logs import log_format

PIECE = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\n\n"]), min_size=1, max_size=6).map(b"".join)
FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), PIECE), max_size=12)
NOON = 1_704_164_645_000_000_000  # 2024-01-02T03:04:05Z


def encode(frames):
    """Frames one second apart."""
    return b"".join(
        log_format.HEADER.pack(NOON + n * 1_000_000_000 + 123, len(data), stream, 0)
        + data
        + log_format.TRAILER.pack(len(data))
        for n, (stream, data) in enumerate(frames)
    )


def demux(wire):
    """{stream: everything on it}"""
    streams = {1: b"", 2: b""}
    for stream, text in messages(wire):
        streams[stream] += text
    return streams


def lines(frames, stream):
    """[(number of the frame in which it begins, text)]"""
    result, current, begun = [], b"", 0
    for number, (one, data) in enumerate(frames):
        if one != stream:
            continue
        for byte in data:
            if not current:
                begun = number
            current += bytes([byte])
            if byte == 10:
                result.append((begun, current))
                current = b""
    return [*result, (begun, current)] if current else result


def stamp(number):
    return b"2024-01-02T03:04:%02d.000000123Z " % (5 + number)


def run(frames, pieces=None, details="", tty=False, **options):
    formatter = Formatter(LogOptions(**{"stdout": True, "stderr": True, **options}), details=details, tty=tty)
    data, wire = encode(frames), b""
    step = pieces or len(data) or 1
    buffer = b""
    for start in range(0, len(data), step):
        buffer += data[start : start + step]
        chunk, used = formatter.block(buffer)
        buffer = buffer[used:]
        wire += chunk
    return wire + formatter.rest()


def messages(wire):
    """[(stream, text of one frame on the wire)]"""
    found, position = [], 0
    while position < len(wire):
        stream, length = struct.unpack_from(">B3xI", wire, position)
        found.append((stream, wire[position + 8 : position + 8 + length]))
        position += 8 + length
    return found


@given(FRAMES, st.integers(1, 50))
def test_all_of_it(frames, pieces):
    got = demux(run(frames, pieces))
    for stream in (1, 2):
        assert got[stream] == b"".join(data for one, data in frames if one == stream)


@given(FRAMES, st.integers(1, 50), st.booleans())
def test_a_message_is_a_line(frames, pieces, timestamps):
    got = messages(run(frames, pieces, timestamps=timestamps))
    for stream in (1, 2):
        wanted = [(stamp(n) if timestamps else b"") + text for n, text in lines(frames, stream)]
        assert [text for one, text in got if one == stream] == wanted


def test_long_lines_are_messages_of_16_kib_each_with_the_time_of_the_first():
    k16 = 16 << 10
    frames = [(1, b"a" * 10_000), (1, b"a" * 10_000 + b"\nb\n"), (2, b"c" * k16), (2, b"\n"), (1, b"d" * k16 + b"e")]
    got = messages(run(frames, timestamps=True))
    assert got == [
        (1, stamp(0) + b"a" * k16),
        (1, stamp(0) + b"a" * (20_000 - k16) + b"\n"),
        (1, stamp(1) + b"b\n"),
        (2, stamp(2) + b"c" * k16),
        (2, stamp(2) + b"\n"),
        (1, stamp(4) + b"d" * k16),
        (1, stamp(4) + b"e"),
    ]


@given(FRAMES)
def test_one_stream(frames):
    assert demux(run(frames, stdout=False))[1] == b""
    assert demux(run(frames, stdout=False))[2] == demux(run(frames))[2]


@given(FRAMES)
def test_a_terminal_is_raw(frames):
    assert run(frames, tty=True) == b"".join(data for _, data in frames)
    assert run(frames, tty=True, stderr=False) == b"".join(data for stream, data in frames if stream == 1)


@given(FRAMES, st.integers(1, 50))
def test_each_line_has_the_time_of_the_frame_in_which_it_begins(frames, pieces):
    got = demux(run(frames, pieces, timestamps=True, details="k=v "))
    for stream in (1, 2):
        assert got[stream] == b"".join(stamp(n) + b"k=v " + text for n, text in lines(frames, stream))


@given(FRAMES, st.integers(0, 12), st.booleans())
def test_since_leaves_out_lines_that_began_before(frames, first, timestamps):
    got = demux(run(frames, since_ns=NOON + first * 1_000_000_000, timestamps=timestamps))
    for stream in (1, 2):
        kept = [(n, text) for n, text in lines(frames, stream) if n >= first]
        assert got[stream] == b"".join((stamp(n) if timestamps else b"") + text for n, text in kept)


@given(FRAMES, st.integers(0, 12))
def test_until_leaves_out_later_frames(frames, last):
    assert run(frames, until_ns=NOON + last * 1_000_000_000 + 200) == run(frames[: last + 1])


@settings(max_examples=100, deadline=None)
@given(frames=FRAMES, count=st.integers(0, 12), per_file=st.integers(1, 12))
def test_tail_of_one_stream(tmp_path_factory, frames, count, per_file):
    """The last lines, also when they lie in several files."""
    directory = tmp_path_factory.mktemp("log")
    parts = [frames[n : n + per_file] for n in range(0, len(frames), per_file)]
    for age, part in enumerate(reversed(parts)):
        (directory / (f"log.{age}" if age else "log")).write_bytes(encode(part))
    everything = b"".join(data for stream, data in frames if stream == 1).split(b"\n")
    texts = [text + b"\n" for text in everything[:-1]] + ([everything[-1]] if everything[-1] else [])
    got = asyncio.run(collect(str(directory), stdout=True, stderr=False, tail=count))
    assert demux(got)[1] == b"".join(texts[max(len(texts) - count, 0) :])


async def collect(directory, **wanted):
    options = LogOptions(**wanted)
    formatter = Formatter(options)
    chunks = with_rest(read_logs(directory, None, formatter, options), formatter)
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("kind", ["json", "framed"])
def test_an_open_log_outlives_its_container(tmp_path, kind):
    """Who has the beginning of an answer has what was logged before, also when the container is removed then."""
    path = tmp_path / "log"
    line = b'{"log":"x\\n","stream":"stdout","time":"2024-01-02T03:04:05Z"}\n'
    path.write_bytes(line if kind == "json" else encode([(1, b"x\n")]))

    async def read():
        options = LogOptions(stdout=True)
        formatter = Formatter(options)
        read = read_json_logs(str(path), None, formatter, options)
        async with aclosing(read if kind == "json" else read_logs(str(tmp_path), None, formatter, options)) as chunks:
            assert await anext(chunks) == b""
            path.unlink()
            return b"".join([chunk async for chunk in chunks])

    assert demux(asyncio.run(read()))[1] == b"x\n"


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert asyncio.run(collect(str(tmp_path / "none"), stdout=True, stderr=True)) == b""


@pytest.mark.parametrize("removed", [False, True])
def test_a_follower_has_what_is_written_until_the_end(tmp_path, removed):
    """Also of a log whose files are removed with their container before the follower has read on."""
    path = tmp_path / "log"
    path.write_bytes(encode([(1, b"before\n")]))

    class Ending:
        """A container that has written one more line when its monitor is asked to send, and has ended."""

        async def attach(self, _fd, _client):
            with path.open("ab") as file:
                file.write(encode([(1, b"before\n"), (1, b"after\n")])[len(encode([(1, b"before\n")])) :])
            if removed:
                path.unlink()
            return False

    async def read():
        options = LogOptions(stdout=True, stderr=True, follow=True)
        formatter = Formatter(options, tty=True)
        return b"".join([chunk async for chunk in read_logs(str(tmp_path), Ending(), formatter, options)])

    assert asyncio.run(read()) == b"before\nafter\n"
