"""Rows out of database files, whole, uncheckpointed and broken; and a connection that outlives a failed commit."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import DataLoss, ResourceExhausted
from ketch.storage.database import salvage, wal
from ketch.storage.database.db import Database, Schema

_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=50),
    st.binary(max_size=50),
    st.binary(min_size=3000, max_size=20000),
    st.floats(allow_nan=False),
)
_ROWS = st.lists(st.tuples(st.text(max_size=20), _VALUES, _VALUES), max_size=40)


def made(path: str, rows: list[tuple[object, ...]], *, checkpointed: bool) -> None:
    """A database with these rows and as many that were deleted; without a checkpoint all of it is in the log."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("CREATE TABLE t (a, b, c)")
    db.executemany("INSERT INTO t VALUES (?, 'deleted', zeroblob(5000))", [(str(n),) for n in range(len(rows))])
    db.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    db.execute("DELETE FROM t WHERE b = 'deleted' AND length(c) = 5000")
    if checkpointed:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in ("", "-wal"):  # closing would checkpoint: look at copies
        with open(path + name, "rb") as f, open(f"{path}.copy{name}", "wb") as g:
            g.write(f.read())
    db.close()


def key(row: tuple[object, ...]) -> str:
    return repr([float(v) if isinstance(v, int) else v for v in row])  # SQLite stores whole floats as integers


@settings(max_examples=25, deadline=None)
@given(_ROWS, st.booleans())
def test_all_rows_and_no_deleted_ones(rows, checkpointed):
    with tempfile.TemporaryDirectory() as directory:
        made(f"{directory}/db", rows, checkpointed=checkpointed)
        found = [row for row in salvage.rows(f"{directory}/db.copy") if len(row) == 3]
    assert sorted(map(key, found)) == sorted(map(key, rows))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_garbage_is_no_reason_to_stop(seed, checkpointed):
    """Whatever is broken, it ends, and rows on pages that are whole are found."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        made(
            f"{directory}/db",
            [(f"row {n}", n, bytes(chance.randrange(9000))) for n in range(30)],
            checkpointed=checkpointed,
        )
        for name in ("db.copy", "db.copy-wal"):
            size = os.path.getsize(f"{directory}/{name}")
            with open(f"{directory}/{name}", "r+b") as f:
                for _ in range(chance.randrange(4) if size else 0):
                    f.seek(chance.randrange(size))
                    f.write(chance.randbytes(chance.randrange(1, 600)))
        list(salvage.rows(f"{directory}/db.copy"))
        wal.parse(wal.content(f"{directory}/db.copy"), 4096)


def test_a_broken_first_page_costs_no_row(tmp_path):
    rows = [(f"row {n}", n, os.urandom(n * 100)) for n in range(40)]
    made(str(tmp_path / "db"), rows, checkpointed=True)
    with open(tmp_path / "db.copy", "r+b") as f:
        f.write(os.urandom(4096))
    found = [row for row in salvage.rows(str(tmp_path / "db.copy")) if len(row) == 3]
    assert sorted(row for row in found if row[1] != "deleted") == sorted(rows)


def test_a_broken_head_of_the_log_costs_no_row(tmp_path):
    rows = [(f"row {n}", n, os.urandom(n * 100)) for n in range(40)]
    made(str(tmp_path / "db"), rows, checkpointed=False)
    assert not wal.head_is_damaged(wal.content(str(tmp_path / "db.copy"))[:32])
    with open(tmp_path / "db.copy-wal", "r+b") as f:
        f.write(os.urandom(32))
    assert wal.head_is_damaged(wal.content(str(tmp_path / "db.copy"))[:32])
    assert sorted(row for row in salvage.rows(str(tmp_path / "db.copy")) if len(row) == 3) == sorted(rows)


def test_a_commit_that_fails_leaves_a_connection_that_works(tmp_path):
    db = Database(str(tmp_path / "db"), [Schema("x", ["CREATE TABLE x (a)"])])
    pages = db.query("PRAGMA page_count")[0][0]
    db.query(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(ResourceExhausted, match="disk is full"), db.transaction() as tx:
        tx.execute("INSERT INTO x VALUES (zeroblob(100000))")
    with db.transaction() as tx:
        tx.execute("INSERT INTO x VALUES (1)")
    assert [row["a"] for row in db.query("SELECT a FROM x")] == [1]
    db.close()


def test_a_damaged_page_is_found_at_the_start(tmp_path):
    path = str(tmp_path / "db")
    schema = Schema("x", ["CREATE TABLE x (a)"])
    with contextlib.closing(Database(path, [schema])) as db, db.transaction() as tx:
        tx.executemany("INSERT INTO x VALUES (?)", [(os.urandom(300),) for _ in range(200)])
    with open(path, "r+b") as f:
        f.seek(6 * 4096)
        f.write(os.urandom(4096))
    with pytest.raises(DataLoss, match="damaged") as caught:
        Database(path, [schema])
    assert "--repair" in caught.value.hint
