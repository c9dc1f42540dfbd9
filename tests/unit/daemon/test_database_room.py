"""Room for the state database: a full disk, and a user's quota, of which statvfs does not know."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from ketch.errors import KetchError, ResourceExhausted
from ketch.storage.database import db, reserve


def failed_write() -> sqlite3.OperationalError:
    """What SQLite raises when write(2) fails in another way than with ENOSPC."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    return error


def made(directory) -> str:
    path = directory / "ketch.db"
    path.touch()
    return str(path)


def refuse(number: int):
    def fallocate(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(number, os.strerror(number))

    return fallocate


def test_a_quota(tmp_path, monkeypatch):
    path = made(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EDQUOT))
    assert not reserve.may_grow(path, 1)
    error = db._explained(failed_write(), path)
    assert isinstance(error, ResourceExhausted)
    assert "the user's quota is reached" in error.message
    assert os.listdir(tmp_path) == ["ketch.db"]


@pytest.mark.parametrize("number", [0, errno.EIO, errno.EOPNOTSUPP])
def test_a_disk_with_room(tmp_path, monkeypatch, number):
    path = made(tmp_path)
    if number:
        monkeypatch.setattr(os, "posix_fallocate", refuse(number))
    assert reserve.may_grow(path, 4096)
    error = db._explained(failed_write(), path)
    assert (type(error), "disk I/O error" in error.message) == (KetchError, True)
    assert os.listdir(tmp_path) == ["ketch.db"]
