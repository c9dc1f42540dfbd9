"""Rows that a newer and an older version of this program write in turn: nothing is lost, or neither begins."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import DataLoss
from ketch.storage.database.db import Database, Schema
from ketch.storage.database.records import HEAD, Form, Records, version_of


class Port(msgspec.Struct, kw_only=True):
    number: int
    host: str = ""


class Limits(msgspec.Struct, kw_only=True):
    memory: int = 0


class Thing(msgspec.Struct, kw_only=True):
    id: str
    name: str = ""
    limits: Limits | None = None
    ports: list[Port] = []
    named: dict[str, Port] = {}
    labels: dict[str, str] = {}


class NewPort(Port, kw_only=True):
    family: int = 4


class NewLimits(Limits, kw_only=True):
    gpus: list[int] = []


class NewThing(Thing, kw_only=True):
    """What a later version might have made of it: fields more, at every depth."""

    limits: NewLimits | None = None
    ports: list[NewPort] = []
    named: dict[str, NewPort] = {}
    zone: dict[str, Any] | None = None


OLD, NEW = Form(Thing, identify={"ports": "number"}), Form(NewThing)
TABLE = "CREATE TABLE things (id TEXT PRIMARY KEY, record BLOB)"


class Store:
    """A table of one program's records, as the engine's stores keep theirs."""

    def __init__(self, path: str, form: Form[Any]) -> None:
        self.db = Database(path, [Schema("things", [TABLE], {"things": form.version})])
        self.records = Records(form)
        rows = self.db.query("SELECT id, record FROM things")
        self.things = {row["id"]: self.records.read(row["id"], row["record"]) for row in rows}

    def save(self, thing: Thing) -> None:
        with self.db.transaction() as tx:
            record = self.records.write(thing.id, thing)
            tx.execute("INSERT OR REPLACE INTO things VALUES (?, ?)", (thing.id, record))


@contextlib.contextmanager
def opened(path: str, form: Form[Any]):
    store = Store(path, form)
    with contextlib.closing(store.db):
        yield store


FULL = {
    "id": "a",
    "limits": NewLimits(memory=5, gpus=[1, 2]),
    "zone": {"rack": [1, {"deep": True}]},
    "ports": [NewPort(number=1, family=6), NewPort(number=2, family=10), NewPort(number=3)],
    "named": {"x": NewPort(number=9, family=6), "y": NewPort(number=8, family=10)},
    "labels": {"l": "m"},
}


def test_an_older_program_keeps_what_it_does_not_know(tmp_path):
    path = str(tmp_path / "db")
    with opened(path, NEW) as store:
        store.save(NewThing(**FULL))
    for name in ("first", "second"):  # what was kept once is kept again
        with opened(path, OLD) as store:
            thing = store.things["a"]
            assert not hasattr(thing, "zone")
            thing.name, thing.limits.memory, thing.labels = name, 7, {"n": name}
            store.save(thing)
            store.save(thing)
    with opened(path, NEW) as store:
        wanted = NewThing(**{**FULL, "name": "second", "labels": {"n": "second"}})
        wanted.limits = NewLimits(memory=7, gpus=[1, 2])
        assert store.things["a"] == wanted


def test_removals_by_an_older_program(tmp_path):
    """Items of a list are known again by what identifies them, wherever they are now."""
    path = str(tmp_path / "db")
    with opened(path, NEW) as store:
        store.save(NewThing(**FULL))
    with opened(path, OLD) as store:
        thing = store.things["a"]
        first, second, third = thing.ports
        second.host = "changed"
        thing.ports = [Port(number=7), third, second]
        thing.named = {"y": thing.named["y"]}
        thing.limits = None
        store.save(thing)
        thing.ports = [first, second]  # it is another one of this number, after it was gone
        thing.named = {"x": Port(number=9)}
        store.save(thing)
    with opened(path, NEW) as store:
        thing = store.things["a"]
        assert thing.ports == [NewPort(number=1), NewPort(number=2, host="changed", family=10)]
        assert thing.named == {"x": NewPort(number=9)}
        assert thing.limits is None
        assert thing.zone == FULL["zone"]


def test_a_newer_program_reads_what_an_older_one_wrote(tmp_path):
    """Also records from before they had a version, and records that need to be changed."""
    path = str(tmp_path / "db")
    with opened(path, OLD) as store:
        store.save(Thing(id="a", name="one", limits=Limits(memory=5)))
        with store.db.transaction() as tx:
            tx.execute("INSERT INTO things VALUES ('b', ?)", (b'{"id":"b","name":"two","new":1}',))

    def upgrade(record: dict[str, Any]) -> None:
        record["name"] = record["name"].upper()

    newer = Form(NewThing, upgrades=[upgrade])
    for _ in range(2):
        with opened(path, newer) as store:
            assert store.things["a"] == NewThing(id="a", name="ONE", limits=NewLimits(memory=5))
            assert store.things["b"].name == "TWO"
            store.save(store.things["b"])
            assert [version_of(row[0]) for row in store.db.query("SELECT record FROM things ORDER BY id")] == [1, 2]
            assert json.loads(store.db.query("SELECT record FROM things WHERE id = 'b'")[0][0])["new"] == 1


def test_records_that_an_older_program_would_misread_are_refused(tmp_path):
    path = tmp_path / "db"
    newer = Form(NewThing, upgrades=[lambda _record: None])
    with opened(str(path), newer) as store:
        store.save(NewThing(**FULL))
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(DataLoss, match="in its table `things` is of version 2, this program knows 1") as caught:
        Store(str(path), OLD)
    assert "newer version" in (caught.value.hint or "")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    with opened(str(path), newer) as store:
        assert store.things["a"] == NewThing(**FULL)
        record = newer.encode(store.things["a"])
    with pytest.raises(DataLoss, match="record of version 2: this program knows 1"):
        OLD.decode(record)


def test_another_row_of_the_same_key_is_another_thing(tmp_path):
    path = str(tmp_path / "db")
    with opened(path, NEW) as store:
        store.save(NewThing(**FULL))
    with opened(path, OLD) as store:
        store.records.forget("a")
        store.save(Thing(id="a"))
    with opened(path, NEW) as store:
        assert store.things["a"] == NewThing(id="a")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_EXTRA = st.dictionaries(st.sampled_from(["new", "newer", "X"]), _JSON, max_size=2)


@given(_EXTRA, _EXTRA, st.lists(_EXTRA, max_size=4), st.text(max_size=3), st.dictionaries(st.text(), st.text()))
def test_unknown_fields_come_back(top, nested, ports, name, labels):
    raw = {
        "schema": 1,
        "id": "a",
        "name": name,
        "limits": {"memory": 1, **nested},
        "ports": [{"number": n, "host": "", **extra} for n, extra in enumerate(ports)],
        "named": {},
        "labels": labels,
        **top,
    }
    records = Records(OLD)
    thing = records.read("a", msgspec.json.encode(raw))
    thing.name += "+"
    again = records.write("a", thing)
    assert msgspec.json.decode(again) == {**raw, "name": thing.name}
    assert version_of(again[:HEAD]) == 1


@pytest.mark.parametrize(
    "record", [b"", b"{}", b"[", b'{"schema":', b'{"schema":x}', b'{"id":"a","schema":5}', b"\xff"]
)
def test_records_without_a_version_are_of_the_first(record):
    assert version_of(record) == 1
