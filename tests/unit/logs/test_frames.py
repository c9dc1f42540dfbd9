"""The log's files: written, rotated, cut short, read backwards."""

from __future__ import annotations

import os
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.engine.logs.framed_files import FramedFiles
from ketch.runtime.logs import log_format

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=60)), max_size=30)


def write(directory, frames, max_size=0, max_files=5):
    with closing(log_format.FramedLogWriter(str(directory), max_size, max_files)) as writer:
        for stream, payload in frames:
            writer.write(stream, payload)


def read(directory):
    with closing(FramedFiles(str(directory))) as files:
        return [(stream, payload) for _, (_, stream, payload) in files.backwards()][::-1]


@settings(max_examples=50, deadline=None)
@given(frames=FRAMES)
def test_frames_are_read_back(tmp_path_factory, frames):
    directory = tmp_path_factory.mktemp("log")
    write(directory, frames)
    assert read(directory) == frames


@settings(max_examples=50, deadline=None)
@given(frames=FRAMES.filter(len), cut=st.integers(1, 80))
def test_a_frame_cut_short_is_dropped_and_the_rest_stays(tmp_path_factory, frames, cut):
    directory = tmp_path_factory.mktemp("log")
    write(directory, frames)
    path = directory / "log"
    size = path.stat().st_size
    left = max(size - cut, 0)
    os.truncate(path, left)
    ends, position = [0], 0
    for _, payload in frames:
        position += log_format.OVERHEAD + len(payload)
        ends.append(position)
    kept = sum(end <= left for end in ends) - 1
    assert read(directory) == frames[:kept]
    write(directory, [(1, b"next")])
    assert read(directory) == [*frames[:kept], (1, b"next")]


def test_rotation_keeps_the_newest_files(tmp_path):
    payloads = [b"%03d" % n + b"." * 97 for n in range(100)]
    write(tmp_path, [(1, p) for p in payloads], max_size=1000, max_files=3)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert all(os.path.getsize(tmp_path / name) <= 1000 + log_format.OVERHEAD for name in os.listdir(tmp_path))
    kept = [payload for _, payload in read(tmp_path)]
    assert kept == payloads[-len(kept) :]
    assert len(kept) > 2 * 8


def test_one_file_only(tmp_path):
    write(tmp_path, [(1, b"x" * 600)] * 5, max_size=1000, max_files=1)
    assert os.listdir(tmp_path) == ["log"]


def test_a_frame_larger_than_the_limit_still_has_its_place(tmp_path):
    write(tmp_path, [(1, b"x" * 5000), (2, b"y")], max_size=1000, max_files=2)
    assert read(tmp_path) == [(1, b"x" * 5000), (2, b"y")]


def test_a_full_disk_leaves_whole_frames(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with closing(log_format.FramedLogWriter(str(tmp_path), 0, 5)) as writer:
        writer.write(1, b"kept")
        os.dup2(os.open("/dev/full", os.O_WRONLY), writer.fd)
        with pytest.raises(OSError, match="space"):
            writer.write(1, b"lost")
    assert read(tmp_path) == [(1, b"kept")]


def test_a_log_that_cannot_be_rotated_grows(tmp_path):
    directory = tmp_path / "log"
    directory.mkdir()
    with closing(log_format.FramedLogWriter(str(directory), 100, 2)) as writer:
        writer.write(1, b"x" * 90)
        (directory / "log.1").mkdir()  # a rename onto it fails
        writer.write(1, b"y" * 90)
        assert os.path.getsize(directory / "log") == 2 * (90 + log_format.OVERHEAD)
        (directory / "log.1").rmdir()
        writer.write(1, b"z" * 90)  # now it can
        assert sorted(os.listdir(directory)) == ["log", "log.1"]
    assert [payload[:1] for _, payload in read(directory)] == [b"x", b"y", b"z"]


def test_reading_while_it_is_written_and_rotated(tmp_path):
    """Whatever is read is one piece: no frame is missing between two others."""
    pid = os.fork()
    if pid == 0:
        # Ten files a few milliseconds each: many rotations, yet slower than a reader needs to open them all.
        writer = log_format.FramedLogWriter(str(tmp_path), 20_000, 10)
        for number in range(1_000_000):
            writer.write(1, b"%d" % number)
        os._exit(0)
    try:
        while not (tmp_path / "log.5").exists():
            time.sleep(0.001)
        for _ in range(40):
            numbers = [int(payload) for _, payload in read(tmp_path)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
