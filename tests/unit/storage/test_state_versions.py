"""State databases of other versions of this program: a newer one's is refused by name, an older one's is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3

import pytest

from ketch.errors import DataLoss
from ketch.storage.database import mark
from ketch.storage.database.db import Database, Schema

OLD = [Schema("x", ["CREATE TABLE x (a TEXT PRIMARY KEY)"])]
NEW = [Schema("x", [*OLD[0].migrations, "ALTER TABLE x ADD COLUMN b TEXT NOT NULL DEFAULT 'new'"])]


def files(place) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(place):
        with open(os.path.join(place, name), "rb") as f:
            found[name] = f.read()
    return found


@pytest.mark.parametrize("killed", [False, True])
def test_newer(tmp_path, killed):
    place = tmp_path / "live"
    place.mkdir()
    one = Database(str(place / "db"), NEW)
    with one.transaction() as tx:
        tx.execute("INSERT INTO x VALUES ('row', 'b')")
    if killed:
        shutil.copytree(place, place := tmp_path / "killed")
    one.close()
    before = files(place)
    with pytest.raises(DataLoss, match="its `x` tables are version 2, this program knows 1") as caught:
        Database(str(place / "db"), OLD)
    assert "newer version" in (caught.value.hint or "")
    assert files(place) == before
    with contextlib.closing(Database(str(place / "db"), NEW)) as again:
        assert [tuple(row) for row in again.query("SELECT * FROM x")] == [("row", "b")]


@pytest.mark.parametrize("marked", [False, True])
def test_older(tmp_path, marked):
    """Without a mark it is of a version that kept none."""
    path = str(tmp_path / "db")
    with contextlib.closing(Database(path, OLD)) as one, one.transaction() as tx:
        tx.execute("INSERT INTO x VALUES ('row')")
    if not marked:
        os.unlink(path + "-mark")
        with contextlib.closing(sqlite3.connect(path)) as plain:
            plain.execute("PRAGMA application_id = 0")
            plain.execute("PRAGMA user_version = 0")
    for _ in range(2):
        with contextlib.closing(Database(path, NEW)) as one:
            assert [tuple(row) for row in one.query("SELECT * FROM x")] == [("row", "new")]
    state = mark.read(path)
    assert state is not None
    assert state.closed


def test_the_count_begins_anew(tmp_path):
    """Behind the largest number that SQLite can keep comes nought, which is no loss."""
    path = str(tmp_path / "db")
    with contextlib.closing(Database(path, OLD)) as one:
        one._changes = (1 << 31) - 3
        for n in range(6):
            with one.transaction() as tx:
                tx.execute("INSERT INTO x VALUES (?)", (str(n),))
    with contextlib.closing(Database(path, OLD)) as one:
        assert len(one.query("SELECT * FROM x")) == 6
        assert one._changes == 3
    assert mark.behind(1, (1 << 31) - 1) == 0
    assert mark.behind((1 << 31) - 1, 1) == 2
    assert mark.behind(5, 5) == 0
