"""After an fsync that has failed: what is written again, and what is not trusted any more."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from ketch import failpoints
from ketch.errors import DataLoss
from ketch.storage.content.leases import Leases
from ketch.storage.database import wal
from ketch.storage.database.db import Database, Schema

SCHEMA = Schema("t", ("CREATE TABLE t (a)",))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ketch.db")


@pytest.fixture
def fail(monkeypatch):
    """Have a place fail, as KETCH_FAULT says it."""
    return lambda text: monkeypatch.setattr(failpoints, "_fault", failpoints.Fault(text, "") if text else None)


def insert(db: Database, value: int) -> None:
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (?)", (value,))


def values(db: Database) -> list[int]:
    return [row["a"] for row in db.query("SELECT a FROM t ORDER BY a")]


def test_the_second_attempt(path, fail, caplog):
    with contextlib.closing(Database(path, [SCHEMA])) as db:
        insert(db, 1)
        fail("database.sync=EIO:1")
        insert(db, 2)
        assert "the second attempt succeeded" in caplog.text
        insert(db, 3)
    with contextlib.closing(Database(path, [SCHEMA])) as db:
        assert values(db) == [1, 2, 3]


def test_no_second_attempt(path, fail):
    """Nothing is changed any more, and what was acknowledged is there afterwards."""
    with contextlib.closing(Database(path, [SCHEMA])) as db:
        insert(db, 1)
        fail("database.sync=EIO")
        with pytest.raises(DataLoss, match="bring state database"):
            insert(db, 2)
        fail("")
        for work in (lambda: insert(db, 3), db.sync):
            with pytest.raises(DataLoss, match="bring state database"):
                work()
        assert 1 in values(db)
    with contextlib.closing(Database(path, [SCHEMA])) as db:
        assert set(values(db)) - {2} == {1}
        insert(db, 4)


def test_pages_that_cannot_be_read_back(path, fail, monkeypatch):
    """The kernel may have given up what was written, and read the disk's older bytes: that is not written again."""
    with contextlib.closing(Database(path, [SCHEMA])) as db:
        insert(db, 1)
        before = os.path.getsize(path + "-wal"), wal.content(path)
        trigger = failpoints.Fault.trigger

        def lose(fault: failpoints.Fault) -> None:
            if not fault.passed:
                with open(path + "-wal", "r+b") as f:
                    f.write(before[1])
            trigger(fault)

        monkeypatch.setattr(failpoints.Fault, "trigger", lose)
        fail("database.sync=EIO:1")
        with pytest.raises(DataLoss, match="cannot be read back"):
            insert(db, 2)


def test_the_length_of_a_log(path):
    db = Database(path, [SCHEMA])
    try:
        for value in range(20):
            insert(db, value)
            data = wal.content(path)
            frames = wal.parse(data, 4096)
            assert wal.length(data, 4096) == wal.HEADER + frames.whole * (wal.FRAME_HEADER + 4096)
            cut = data[: wal.length(data, 4096) - 10]
            assert wal.length(cut, 4096) == len(cut)
    finally:
        db.close()
    assert wal.length(b"", 4096) == wal.length(bytes(wal.HEADER), 4096) == wal.length(bytes(5000), 4096) == 0


def test_leases_that_were_under_way(tmp_path):
    """What they hold is not trusted until they end; what is taken later is."""
    leases = Leases(threading.RLock(), str(tmp_path / "leases"))
    with leases.take(lambda _names: None) as first:
        with leases.take(lambda _names: None) as second:
            first.hold("a")
            leases.spoil()
            second.hold("b")
            with leases.take(lambda _names: None) as third:
                third.hold("c")
                assert leases.spoiled() == {"a", "b"}
        assert leases.spoiled() == {"a"}
    assert leases.spoiled() == set()
