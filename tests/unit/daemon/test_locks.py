"""Locks that keep a second daemon off a first one's files."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from ketch.daemon import listen
from ketch.errors import AlreadyExists


@pytest.fixture
def holder(tmp_path):
    """A descriptor that holds the data root's lock, as a child has it that a killed daemon was just starting."""
    fd = os.open(tmp_path / "ketch.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_who_is_about_to_leave_is_waited_for(tmp_path, holder):
    leaving = threading.Timer(0.1, os.close, (holder,))
    leaving.start()
    with listen.data_lock(str(tmp_path)), pytest.raises(AlreadyExists, match="in use by another ketchd"):
        with listen.data_lock(str(tmp_path)):
            pass
    leaving.join()


def test_who_stays_is_named(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(listen, "_LEAVING_S", 0.05)
    os.pwrite(holder, b"77", 0)
    with pytest.raises(AlreadyExists, match=r"data root `.*` is in use by another ketchd \(pid 77\)"):
        with listen.data_lock(str(tmp_path)):
            pass
    os.close(holder)
