"""The json-file driver's lines, and how output is cut into messages."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.engine.logs.json_files import JsonFiles, Times, entries, nanoseconds
from ketch.notation.times import rfc3339
from ketch.runtime.logs import json_log
from ketch.runtime.logs.log_lines import LIMIT, Splitter

ANY = st.binary(max_size=2000) | st.text(st.characters(max_codepoint=127), max_size=2000).map(str.encode)


def as_go_reads(data: bytes) -> str:
    """What Go's decoder makes of bytes: each one that is no part of a character is U+FFFD."""
    out, position = [], 0
    while position < len(data):
        for length in (1, 2, 3, 4):
            try:
                out.append(data[position : position + length].decode())
            except UnicodeDecodeError:
                continue
            position += length
            break
        else:
            out.append("\ufffd")
            position += 1
    return "".join(out)


@given(
    st.lists(st.binary(max_size=300)),
    st.lists(st.sampled_from([b"\n", b"\\n", b'"', b"\xe2\x82", "é€😀\u2028".encode()])),
)
def test_lines_split_and_join(pieces, more):
    splitter, data = Splitter(), pieces + more
    blocks = [block for piece in data for block, _ in splitter.take(piece)]
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) + splitter.rest() == b"".join(data)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT, 3 * LIMIT + 7])
@pytest.mark.parametrize("step", [1000, 1 << 16])
def test_long_lines_are_cut_at_16_kib(size, step):
    """Docker's buffer has 16 KiB, the newline included."""
    data = b"x" * size + b"\nshort\n"
    splitter = Splitter()
    got = [one for start in range(0, len(data), step) for one in splitter.take(data[start : start + step])]
    pieces = [block for block, partial in got if partial]
    assert [len(piece) for piece in pieces] == [LIMIT] * (size // LIMIT)
    assert b"".join(block for block, _ in got) == data


@given(data=ANY, cuts=st.lists(st.integers(0, 2000), max_size=5))
@settings(max_examples=150)
def test_written_lines_are_json(tmp_path_factory, data, cuts):
    """Whatever is printed, in whatever pieces: each line of the file is an object, together they are the output."""
    path = str(tmp_path_factory.mktemp("log") / "x-json.log")
    writer = json_log.JsonLogWriter(path, 0, 1, attrs='{"a":"b"}')
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        writer.write(1, data[start:end])
    writer.finish()
    with open(path, "rb") as f:
        raw = f.read()
    messages = [json.loads(line) for line in raw.splitlines()]
    lines = data.split(b"\n")
    wanted = [as_go_reads(line) + "\n" for line in lines[:-1]] + ([as_go_reads(lines[-1])] if lines[-1] else [])
    assert [one["log"] for one in messages] == wanted
    assert all(list(one) == ["log", "stream", "attrs", "time"] for one in messages)
    assert [one.log for one in entries(raw)] == wanted


def test_pieces_of_a_line_have_one_time(tmp_path, monkeypatch):
    path = str(tmp_path / "x-json.log")
    writer = json_log.JsonLogWriter(path, 0, 1)
    writer.write(2, b"x" * LIMIT + b"y")
    writer.write(1, b"between\n")
    writer.write(2, b"z\nnext\n")
    got = [json.loads(line) for line in open(path, "rb")]  # noqa: SIM115
    assert [(one["log"][-2:], one["stream"]) for one in got] == [
        ("xx", "stderr"),
        ("n\n", "stdout"),
        ("z\n", "stderr"),
        ("t\n", "stderr"),
    ]
    assert got[0]["time"] == got[2]["time"] < got[3]["time"]


def test_half_a_line_is_dropped_at_the_next_open(tmp_path):
    path = tmp_path / "x-json.log"
    writer = json_log.JsonLogWriter(str(path), 0, 1)
    writer.write(1, b"whole\n")
    with open(path, "ab") as f:
        f.write(b'{"log":"half of ' + b"x" * 100_000)
    again = json_log.JsonLogWriter(str(path), 0, 1)
    again.write(1, b"next\n")
    assert [json.loads(line)["log"] for line in path.read_bytes().splitlines()] == ["whole\n", "next\n"]


@pytest.mark.parametrize("max_files", [1, 2, 4])
def test_rotation(tmp_path, max_files):
    path = tmp_path / "x-json.log"
    writer = json_log.JsonLogWriter(str(path), 1000, max_files)
    for number in range(200):
        writer.write(1, b"%d\n" % number)
    files = json_log.names(str(path))
    assert len(files) == max_files
    assert [os.path.basename(f) for f in files[-2:]] == ["x-json.log.1", "x-json.log"][-len(files) :]
    assert all(os.path.getsize(f) <= 1000 for f in files)
    kept = [int(json.loads(line)["log"]) for f in files for line in open(f, "rb")]  # noqa: SIM115
    assert kept == list(range(kept[0], 200))


def test_one_read_may_fill_several_files(tmp_path):
    path = tmp_path / "x-json.log"
    writer = json_log.JsonLogWriter(str(path), 500, 1000)
    writer.write(1, b"".join(b"%d\n" % number for number in range(100)))
    files = json_log.names(str(path))
    assert len(files) > 5
    assert all(os.path.getsize(f) <= 500 for f in files)
    assert [int(json.loads(line)["log"]) for f in files for line in open(f, "rb")] == list(range(100))  # noqa: SIM115


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "x-json.log"
    writer = json_log.JsonLogWriter(str(path), 0, 5)
    for number in range(3):
        writer.write(1, b"%d\n" % number)
        if number < 2:
            writer._rotate()
            json_log.gzip(f"{path}.1")
    assert sorted(os.listdir(tmp_path)) == ["x-json.log", "x-json.log.1.gz", "x-json.log.2.gz"]
    files = JsonFiles(str(path))
    got = []
    while block := files.next():
        got += [one.log for one in entries(block)]
        if len(got) == 3:
            # What comes while it is read, in files that are rotated and compressed meanwhile.
            writer.write(1, b"3\n")
            writer._rotate()
            json_log.gzip(f"{path}.1")
            writer.write(2, b"4\n")
            writer._rotate()
            writer.write(1, b"5\n")
    files.close()
    assert got == [f"{number}\n" for number in range(6)]


@pytest.mark.parametrize(("lines", "wanted"), [(1, "b3"), (2, "a3b3"), (3, "b2a3b3"), (100, "a1b1a2b2a3b3")])
def test_tail(tmp_path, lines, wanted):
    path = tmp_path / "x-json.log"
    writer = json_log.JsonLogWriter(str(path), 200, 10)
    for number in (1, 2, 3):
        writer.write(1, b"a%d\n" % number)
        writer.write(2, b"b%d\n" % number)
    files = JsonFiles(str(path))
    files.seek(files.tail(lines, (False, True, True), 0))
    text = ""
    while block := files.next():
        text += "".join(one.log.strip() for one in entries(block))
    files.close()
    assert text == wanted


def test_lines_that_are_no_messages_are_left_out():
    good = [b'{"log":"a\\n","stream":"stdout","time":"x"}', b'{"log":"b\\n","stream":"stderr","time":""}']
    block = b"\n".join((good[0], b"not json", b'{"log":1}', good[1], b""))
    assert [(one.log, one.stream) for one in entries(block)] == [("a\n", "stdout"), ("b\n", "stderr")]


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_times_round_trip(ns):
    assert nanoseconds(rfc3339(ns)) == Times()(rfc3339(ns)) == ns


def test_times_of_others():
    times = Times()
    for text, wanted in (
        ("2024-01-02T03:04:05.5Z", 1704164645_500000000),
        ("2024-01-02T03:04:05.000000001Z", 1704164645_000000001),
        ("2024-01-02T03:04:05Z", 1704164645_000000000),
        ("2024-01-02T05:04:05.25+02:00", 1704164645_250000000),
        ("yesterday", 0),
    ):
        assert nanoseconds(text) == wanted
        assert times(text) == wanted
