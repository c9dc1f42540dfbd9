"""Ids, generated names, and finding a container by what people type."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model import names
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, Status
from ketch.engine.model.store import SCHEMA, ContainerStore
from ketch.errors import AlreadyExists, InvalidArgument, NotFound
from ketch.storage.database import removals
from ketch.storage.database.db import Database


def make(container_id: str, name: str, created: int = 1) -> Container:
    return Container(
        id=container_id,
        name=name,
        created=created,
        image_id="sha256:0",
        image_ref="busybox",
        config=ContainerConfig(env=["A=b"]),
        host=HostConfig(memory=6 << 20),
    )


@pytest.fixture
def db(tmp_path):
    database = Database(str(tmp_path / "ketch.db"), [SCHEMA, removals.SCHEMA])
    yield database
    database.close()


def test_ids_are_64_hex_and_never_look_like_numbers():
    for _ in range(200):
        assert re.fullmatch("[0-9a-f]{64}", new := names.new_id())
        assert not new[:12].isdecimal()


def test_generated_names_are_valid_and_avoid_the_taken():
    taken = {f"{a}_{s}" for a in names.ADJECTIVES for s in names.SURNAMES}
    assert len(taken) == len(names.ADJECTIVES) * len(names.SURNAMES) > 8000
    name = names.generate(taken)
    assert name not in taken
    assert names.check(name) == name


@given(st.text(max_size=20))
def test_checked_names_have_only_safe_characters(name):
    try:
        checked = names.check(name)
    except InvalidArgument:
        return
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", checked)


@pytest.mark.parametrize("bad", ["", "a", "-x", "a b", "a/b", "é1", "ab\n"])
def test_bad_names(bad):
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        names.check(bad)


def test_lookup_order_and_ambiguity(db):
    store = ContainerStore(db)
    first, second = make("ab" + "0" * 62, "one"), make("ac" + "0" * 62, "ab")
    store.add(first)
    store.add(second)
    assert store.get("one") is first
    assert store.get("/one") is first
    assert store.get("ab") is second, "a name goes before an id prefix"
    assert store.get("ac0") is second
    with pytest.raises(InvalidArgument, match="Multiple IDs found"):
        store.get("a")
    with pytest.raises(InvalidArgument, match='invalid name or ID supplied: ""'):
        store.get("")
    for missing in ("zz", "ab1"):
        with pytest.raises(NotFound, match="No such container"):
            store.get(missing)


def test_names_are_unique_and_freed_by_removal_and_rename(db):
    store = ContainerStore(db)
    first = make("a" * 64, "one")
    store.add(first)
    with pytest.raises(AlreadyExists, match="already in use by container"):
        store.add(make("b" * 64, "one"))
    store.rename(first, "two")
    second = make("b" * 64, "one")
    store.add(second)
    with pytest.raises(AlreadyExists):
        store.rename(second, "two")
    store.remove(first)
    store.rename(second, "two")
    assert [c.name for c in store.all()] == ["two"]


def test_records_survive_reopening_to_the_last_field(tmp_path):
    path = str(tmp_path / "ketch.db")
    db = Database(path, [SCHEMA, removals.SCHEMA])
    store = ContainerStore(db)
    container = make("a" * 64, "one")
    store.add(container)
    container.state.status, container.state.exit_code = Status.EXITED, 3
    store.save(container)
    db.close()
    db = Database(path, [SCHEMA, removals.SCHEMA])
    assert ContainerStore(db).get("one") == container
    db.close()


def test_a_removed_container_is_not_saved_again(db):
    store = ContainerStore(db)
    container = make("a" * 64, "one")
    store.add(container)
    store.remove(container)
    store.save(container)
    assert ContainerStore(db).all() == []
