"""The state database and its log damaged in every way: refused with nothing changed, or nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading

import pytest

from ketch.errors import DataLoss
from ketch.storage.database import db as database
from ketch.storage.database import mark, reserve
from ketch.storage.database.db import Database, Schema
from tests.support.waiting import patient

SCHEMAS = [Schema("x", ["CREATE TABLE x (a TEXT PRIMARY KEY, b BLOB)"])]
FRAME = 24 + 4096
FILES = ("db", "db-wal", "db-shm", "db-mark", "db-reserve")


def copy(source, target) -> None:
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(target):
        os.unlink(f"{target}/{name}")
    for name in FILES:
        if os.path.exists(f"{source}/{name}"):
            shutil.copyfile(f"{source}/{name}", f"{target}/{name}")


def listing(place) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(place):
        with open(f"{place}/{name}", "rb") as f:
            found[name] = f.read()
    return found


def value(n: int) -> bytes:
    return str(n).encode() * 300


class Roots:
    """Copies of one database's files: while it lived (as a kill leaves them), earlier, closed, and another's."""

    def __init__(self, place, monkeypatch) -> None:
        monkeypatch.setattr(database, "_CHECKPOINT_AFTER", 20)
        monkeypatch.setattr(reserve, "SIZE", 1 << 16)
        monkeypatch.setattr(reserve, "GROWTH", 1 << 14)
        self.live, self.early, self.closed, self.other = (f"{place}/{n}" for n in ("live", "early", "closed", "other"))
        self.try_ = f"{place}/try"
        work = f"{place}/work"
        os.makedirs(work)
        self.rows = self._fill(work, range(70), at={25: self.early, 69: self.live})
        copy(work, self.closed)
        other = f"{place}/elsewhere"
        os.makedirs(other)
        self._fill(other, range(100, 190), at={189: self.other})

    @staticmethod
    def _fill(place: str, numbers: range, at: dict[int, str]) -> dict[str, bytes]:
        one, rows = Database(f"{place}/db", SCHEMAS), {}
        for n in numbers:
            with one.transaction(durable=n % 3 == 0) as tx:
                tx.execute("INSERT INTO x VALUES (?, ?)", (f"row {n}", value(n)))
                rows[f"row {n}"] = value(n)
                if n % 7 == 6:
                    tx.execute("DELETE FROM x WHERE a = ?", (f"row {n - 3}",))
                    del rows[f"row {n - 3}"]
            if one._checkpointing is not None:
                one._checkpointing.join()  # copies are of a moment
            if n in at:
                one.sync()
                copy(place, at[n])
        one.close()
        return rows

    def outcome(self, *, whole: bool = True) -> str:
        """``refused`` with nothing changed, or ``whole``; anything else fails."""
        before = listing(self.try_)
        try:
            one = Database(f"{self.try_}/db", SCHEMAS)
        except DataLoss as e:
            assert f"{self.try_}/db" in e.message
            assert e.hint
            assert listing(self.try_) == before
            return "refused"
        found = {row["a"]: row["b"] for row in one.query("SELECT a, b FROM x")}
        one.close()
        assert found == self.rows
        assert whole
        # What was started from is whole and marked again.
        with contextlib.closing(Database(f"{self.try_}/db", SCHEMAS)) as again:
            assert len(again.query("SELECT a FROM x")) == len(self.rows)
        return "whole"


@pytest.fixture
def roots(monkeypatch):
    """In memory, where thousands of fsyncs cost nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Roots(place, monkeypatch)


def page_count(path: str) -> int:
    """What the header of a database says."""
    with open(path, "rb") as f:
        return struct.unpack(">I", f.read(32)[28:])[0]


def flip(path: str, at: int) -> None:
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x20]))


def frames(path: str) -> int:
    """How many frames of the log's present age there are."""
    with open(path, "rb") as f:
        data = f.read()
    n = 0
    while data[32 + n * FRAME + 8 : 32 + n * FRAME + 16] == data[16:24]:
        n += 1
    return n


@pytest.mark.parametrize("state", ["live", "closed"])
def test_untouched(roots, state):
    copy(getattr(roots, state), roots.try_)
    assert roots.outcome() == "whole"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "empty", "early", "other", "garbage"])
@pytest.mark.parametrize("state", ["live", "closed"])
def test_one_file(roots, state, name, how):
    copy(getattr(roots, state), roots.try_)
    path = f"{roots.try_}/{name}"
    there = os.path.exists(path)
    if how == "gone" and there:
        os.unlink(path)
    elif how == "empty":
        open(path, "wb").close()
    elif how in ("early", "other"):
        source = f"{getattr(roots, how)}/{name}"
        if os.path.exists(source):
            shutil.copyfile(source, path)
    elif how == "garbage":
        with open(path, "wb") as f:
            f.write(os.urandom(9000))
    result = roots.outcome()
    if name == "db" or (name, state) == ("db-wal", "live"):
        assert result == "refused"
    if name in ("db-shm", "db-reserve"):
        assert result == "whole"


def test_an_older_copy_of_database_and_log(roots):
    copy(roots.live, roots.try_)
    for name in ("db", "db-wal"):
        shutil.copyfile(f"{roots.early}/{name}", f"{roots.try_}/{name}")
    assert roots.outcome() == "refused"


def test_the_log_cut_at_each_frame(roots):
    count = frames(f"{roots.live}/db-wal")
    assert count > 20
    for n in range(count + 1):
        for extra in (0, (7, 24, 2000)[n % 3]):
            copy(roots.live, roots.try_)
            os.truncate(f"{roots.try_}/db-wal", 32 + n * FRAME + extra)
            assert (roots.outcome() == "whole") == (n == count)
    for size in (1, 31):
        copy(roots.live, roots.try_)
        os.truncate(f"{roots.try_}/db-wal", size)
        assert roots.outcome() == "refused"


def test_a_byte_in_each_frame(roots):
    for n in range(frames(f"{roots.live}/db-wal")):
        for place in ((0, 9, 2000), (5, 17, FRAME - 1))[n % 2]:
            copy(roots.live, roots.try_)
            flip(f"{roots.try_}/db-wal", 32 + n * FRAME + place)
            assert roots.outcome() == "refused", (n, place)
    for place in range(0, 32, 3):
        copy(roots.live, roots.try_)
        flip(f"{roots.try_}/db-wal", place)
        roots.outcome()


@pytest.mark.parametrize("state", ["live", "closed"])
def test_a_byte_in_each_page(roots, state):
    pages = page_count(f"{roots.live}/db")
    assert pages > 10
    refused = 0
    for n in range(pages):
        for place in (0, 60, 2048 + n, 4095):
            copy(getattr(roots, state), roots.try_)
            flip(f"{roots.try_}/db", n * 4096 + place)
            refused += roots.outcome() == "refused"  # else the page is in the log as well
    assert refused == pages * 4 if state == "closed" else refused > pages


@pytest.mark.parametrize("state", ["live", "closed"])
def test_the_database_cut_at_each_page(roots, state):
    for size in range(0, page_count(f"{roots.closed}/db") * 4096, 3072):
        copy(getattr(roots, state), roots.try_)
        os.truncate(f"{roots.try_}/db", size)
        assert roots.outcome() == "refused" or state == "live"


def test_a_byte_of_the_mark(roots):
    """The mark guards; when it is damaged itself nothing is lost."""
    with open(f"{roots.closed}/db-mark", "rb") as f:
        size = len(f.read().rstrip(b"\0"))
    for place in (*range(0, 73, 5), *range(4096, size, 7)):
        copy(roots.closed, roots.try_)
        flip(f"{roots.try_}/db-mark", place)
        roots.outcome()


def test_a_torn_end_of_the_log(roots):
    """A power cut: what was written last and not acknowledged is broken, and another part of it is whole."""
    work = os.path.dirname(roots.try_) + "/torn"
    copy(roots.live, work)
    one = Database(f"{work}/db", SCHEMAS)
    count = frames(f"{work}/db-wal")
    for n in range(3):
        with one.transaction(durable=False) as tx:
            tx.execute("INSERT INTO x VALUES (?, 'never acknowledged')", (f"late {n}",))
    copy(work, roots.try_)
    one.close()
    flip(f"{roots.try_}/db-wal", 32 + count * FRAME + 100)
    assert roots.outcome() == "refused"  # since the same boot only damage can do that
    head = mark._HEADER
    with open(f"{roots.try_}/db-mark", "r+b") as f:
        fields = list(head.unpack(f.read(head.size)))
        fields[-1] = b"another boot"
        packed = head.pack(*fields)
        f.seek(0)
        f.write(packed + struct.pack(">I", __import__("zlib").crc32(packed)))
    assert roots.outcome() == "whole"


@pytest.mark.parametrize("edit", ["SELECT * FROM x", "INSERT INTO x VALUES ('mine', 1)"])
def test_another_program_after_a_kill(roots, edit):
    """Whoever opens the database with SQLite and closes it takes the log in: nothing is missing then."""
    copy(roots.live, roots.try_)
    with contextlib.closing(sqlite3.connect(f"{roots.try_}/db")) as other, other:
        other.execute(edit)
    assert not os.path.exists(f"{roots.try_}/db-wal")
    with contextlib.closing(Database(f"{roots.try_}/db", SCHEMAS)) as one:
        assert len(one.query("SELECT a FROM x")) == len(roots.rows) + edit.startswith("INSERT")


def test_a_kill_at_any_moment(tmp_path):
    """Killed while it writes and checkpoints: each number that was told is there at the next start."""
    program = (
        "import sys; from ketch.storage.database import db; db._CHECKPOINT_AFTER = 3\n"
        "one = db.Database(sys.argv[1], [db.Schema('x', ['CREATE TABLE x (a)'])])\n"
        "n = one.query('SELECT coalesce(max(a), 0) FROM x')[0][0]\n"
        "while True:\n"
        "    n += 1\n"
        "    with one.transaction() as tx: tx.execute('INSERT INTO x VALUES (?)', (n,))\n"
        "    print(n, flush=True)\n"
    )
    told = 0
    for turn in range(12):
        command = [sys.executable, "-c", program, str(tmp_path / "db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5 + turn):
                line = process.stdout.readline()
                assert line, "it does not start"
                told = int(line)
            process.kill()
            told = max(
                [told, *(int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1:] == "\n")]
            )
    with contextlib.closing(Database(str(tmp_path / "db"), [Schema("x", ["CREATE TABLE x (a)"])])) as one:
        numbers = [row["a"] for row in one.query("SELECT a FROM x ORDER BY a")]
    assert numbers[:told] == list(range(1, told + 1))


def test_checkpoints_delay_nothing(tmp_path, monkeypatch):
    """Transactions go on while it brings something to the disk; who is killed in the middle of it has lost nothing."""
    began, go_on, fsync = threading.Event(), threading.Event(), os.fsync

    def slow(fd: int) -> None:
        began.set()
        assert go_on.wait(patient(20))
        fsync(fd)

    monkeypatch.setattr(database, "_CHECKPOINT_AFTER", 5)
    with contextlib.closing(Database(f"{tmp_path}/db", SCHEMAS)) as one:
        monkeypatch.setattr(os, "fsync", slow)
        try:
            for n in range(30):
                with one.transaction(durable=False) as tx:
                    tx.execute("INSERT INTO x VALUES (?, ?)", (f"row {n}", value(n)))
                if n == 6:
                    assert began.wait(patient(20))
            one.sync()
            copy(tmp_path, tmp_path / "killed")
            assert not go_on.is_set()
        finally:
            go_on.set()
            monkeypatch.setattr(os, "fsync", fsync)
    for place in (tmp_path, tmp_path / "killed"):
        with contextlib.closing(Database(f"{place}/db", SCHEMAS)) as one:
            assert len(one.query("SELECT a FROM x")) == 30


def test_a_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    """Although there is a transaction beside each checkpoint, so that none of them takes the whole log in."""
    fsync, numbers = os.fsync, iter(range(10_000))

    def write(one: Database) -> None:
        with one.transaction(durable=False) as tx:
            tx.execute("INSERT INTO x VALUES (?, ?)", (f"row {(n := next(numbers))}", value(n)))

    def busy(fd: int) -> None:
        fsync(fd)
        if threading.current_thread().name == "checkpoint":
            write(one)

    monkeypatch.setattr(database, "_CHECKPOINT_AFTER", 20)
    monkeypatch.setattr(reserve, "SIZE", 1 << 16)
    with contextlib.closing(Database(f"{tmp_path}/db", SCHEMAS)) as one:
        monkeypatch.setattr(os, "fsync", busy)
        for _ in range(200):
            write(one)
            if one._checkpointing is not None:
                one._checkpointing.join()
        monkeypatch.setattr(os, "fsync", fsync)
        with open(f"{tmp_path}/db-wal", "rb") as f:
            begun_anew = struct.unpack(">I", f.read(16)[12:])[0]  # §4.1: the checkpoint's number
        assert begun_anew > 2
    with contextlib.closing(Database(f"{tmp_path}/db", SCHEMAS)) as one:
        assert len(one.query("SELECT a FROM x")) == next(numbers)


def test_a_reserve_that_is_a_link_is_not_followed(roots):
    copy(roots.live, roots.try_)
    for suffix in ("-wal", "-reserve"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{roots.try_}/db{suffix}")
    target = f"{roots.try_}/target"
    with open(target, "wb") as f:
        f.write(b"mine")
    os.symlink(target, f"{roots.try_}/db-reserve")
    reserve.put_back(f"{roots.try_}/db")
    assert not os.path.lexists(f"{roots.try_}/db-reserve")
    assert not os.path.lexists(f"{roots.try_}/db-wal")
    with open(target, "rb") as f:
        assert f.read() == b"mine"
