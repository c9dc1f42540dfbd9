"""A file that one side writes and the other reads: nothing is lost, nothing read twice, nobody waits in vain."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import ResourceExhausted
from ketch.storage.archive import limits
from ketch.storage.archive.follow_file import FollowedFile, GivenUp, UnpackProgress
from tests.support.waiting import patient


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=3000), max_size=12), st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_the_reader_gets_everything_in_any_pieces(pieces, sizes):
    whole = b"".join(pieces)
    progress = UnpackProgress.make()
    got: list[bytes] = []
    with tempfile.TemporaryFile(buffering=0) as file:
        reader = FollowedFile(file.fileno(), progress)

        def read() -> None:
            while data := reader.read(sizes[len(got) % len(sizes)]):
                got.append(data)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        written = 0
        for piece in pieces:
            written += file.write(piece)
            progress.grown(written)
        progress.whole(written)
        thread.join(patient(10))
        assert not thread.is_alive()
    assert b"".join(got) == whole
    assert progress.consumed == len(whole)
    progress.close()


@pytest.mark.parametrize("how", ["by the writer", "by the reader"])
def test_a_read_that_waits_is_ended(how):
    progress = UnpackProgress.make()
    ended: list[type] = []
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"abc")
        reader = FollowedFile(file.fileno(), progress)
        progress.grown(3)
        assert reader.read(10) == b"abc"

        def wait() -> None:
            try:
                reader.read(10)
            except GivenUp:
                ended.append(GivenUp)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        if how == "by the writer":
            progress.give_up()
        else:
            reader.stop()
        thread.join(patient(10))
    assert ended == [GivenUp]
    progress.close()


def test_a_file_shorter_than_it_is_said_to_be_is_no_endless_loop():
    """Somebody has cut it short behind the writer's back."""
    progress = UnpackProgress.make()
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"abc")
        progress.whole(10)
        reader = FollowedFile(file.fileno(), progress)
        assert reader.read(10) == b"abc"
        assert reader.read(10) == b""
    progress.close()


class _Zeros:
    def read(self, size: int = -1, /) -> bytes:
        return bytes(1 << 20)


def _room(monkeypatch: pytest.MonkeyPatch, *, megabytes: int, files: int) -> None:
    told = (4096, 4096, 1 << 20, megabytes * 256, megabytes * 256, 64_000, files, files, 0, 255)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: os.statvfs_result(told))


@pytest.mark.parametrize(
    ("megabytes", "files", "fits"), [(65, 64_000, True), (63, 64_000, False), (65, 1000, True), (65, 999, False)]
)
def test_reserved_space(monkeypatch, megabytes, files, fits):
    _room(monkeypatch, megabytes=megabytes, files=files)
    guard = limits.Guard(_Zeros(), 0)
    if fits:
        assert len(guard.read()) == 1 << 20
        return
    with pytest.raises(ResourceExhausted, match="no space left"):
        guard.read()


def test_room_is_looked_for_again_and_again(monkeypatch):
    _room(monkeypatch, megabytes=1000, files=64_000)
    guard = limits.Guard(_Zeros(), 0)
    guard.read()
    _room(monkeypatch, megabytes=10, files=64_000)
    with pytest.raises(ResourceExhausted):
        for _ in range(40):
            guard.read()
