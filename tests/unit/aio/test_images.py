"""Archives that are written: whole, or not at all."""

from __future__ import annotations

import os
import threading

import pytest

from ketch.aio import images


def write(path, *, fails: bool = False) -> None:
    with images._new_file(str(path)) as f:
        f.write(b"half")
        if fails:
            raise ConnectionResetError
        f.write(b" and half")


def test_a_broken_archive_has_no_name(tmp_path):
    path = tmp_path / "a.tar"
    with pytest.raises(ConnectionResetError):
        write(path, fails=True)
    assert os.listdir(tmp_path) == []
    write(path)
    assert path.read_bytes() == b"half and half"
    with pytest.raises(ConnectionResetError):
        write(path, fails=True)
    assert path.read_bytes() == b"half and half"
    (tmp_path / "link").symlink_to("a.tar")
    path.write_bytes(b"")
    write(tmp_path / "link")
    assert path.read_bytes() == b"half and half"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "link"]


def test_a_pipe_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: write(pipe))
    thread.start()
    assert pipe.read_bytes() == b"half and half"
    thread.join()
    assert pipe.is_fifo()
