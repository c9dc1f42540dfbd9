"""The history of builds: what is forgotten, and what goes with it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest

from ketch.engine.build import history
from ketch.engine.build.history import CANCELED, SCHEMA, BuildHistory
from ketch.engine.model.building.records import BuildRecord, HistoryLimits
from ketch.errors import AlreadyExists
from ketch.storage.database.db import Database
from tests.support.waiting import patient

HOUR = 3600 * 10**9


@pytest.fixture
def db(tmp_path):
    found = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    yield found
    found.close()


@pytest.fixture
def clock(monkeypatch):
    """An hour goes by with each look at it."""
    hours = itertools.count(1000)
    monkeypatch.setattr(time, "time_ns", lambda: next(hours) * HOUR)


def built(kept: BuildHistory, ref: str, **fields) -> None:
    record = BuildRecord(**{"ref": ref, "name": ref, "created": 0, "status": "completed", **fields})
    kept.begin(record)
    blob = kept.keep(ref, "text/plain", ref.encode())
    record.attestations.append(blob)
    kept.write(record, log=b"log")


def refs(kept: BuildHistory) -> list[str]:
    return [one.ref for one in kept.all()]


def test_what_is_past_both_limits_is_forgotten(db, clock):
    kept = BuildHistory(db, HistoryLimits(max_entries=2, max_age=11 * HOUR))
    built(kept, "pinned", pinned=True)
    built(kept, "running", status="running")
    for number in range(6):
        built(kept, f"b{number}")
    found = refs(kept)
    assert found[:2] == ["b5", "b4"]
    assert found[-2:] == ["running", "pinned"]
    assert "b0" not in found  # and those of the last hours are here, although they are more than two
    assert len(found) > 4
    for table in ("build_logs", "build_blobs"):
        assert {ref for (ref,) in db.query(f"SELECT ref FROM {table}")} == set(found)


def test_there_is_an_end_whatever_their_age(db, clock, monkeypatch):
    monkeypatch.setattr(history, "_MOST", 3)
    kept = BuildHistory(db, HistoryLimits(max_entries=2, max_age=10**6 * HOUR))
    for number in range(6):
        built(kept, f"b{number}")
    assert refs(kept) == ["b5", "b4", "b3"]


def test_blobs_are_found_by_their_digests(db):
    kept = BuildHistory(db, HistoryLimits())
    built(kept, "one")
    blob = kept.get("one").attestations[0]
    assert (kept.blob(blob.digest), blob.size) == (b"one", 3)
    kept.remove("one")
    assert kept.blob(blob.digest) is None


def test_a_ref_is_of_one_build(db):
    kept = BuildHistory(db, HistoryLimits())
    built(kept, "one")
    with pytest.raises(AlreadyExists):
        built(kept, "one")


async def test_a_build_that_is_given_up_while_it_is_noted_has_ended(db, monkeypatch):
    kept = BuildHistory(db, HistoryLimits())
    begin, there, on = kept.begin, asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(record):
        loop.call_soon_threadsafe(there.set)
        assert on.wait(patient(10))
        begin(record)

    monkeypatch.setattr(kept, "begin", slow)
    task = asyncio.create_task(kept.begun(BuildRecord(ref="r", name="r", created=0)))
    await there.wait()
    task.cancel()
    await asyncio.sleep(0)
    on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(one.status, one.error, one.completed > 0) for one in kept.all()] == [("canceled", CANCELED, True)]


async def test_a_build_that_is_given_up_leaves_another_of_its_ref_alone(db):
    kept = BuildHistory(db, HistoryLimits())
    built(kept, "r")
    task = asyncio.create_task(kept.begun(BuildRecord(ref="r", name="r", created=0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.status for one in kept.all()] == ["completed"]
