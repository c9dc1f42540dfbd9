"""Group commit: one fsync for many callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ketch.engine.aio.group_commit import GroupCommit
from ketch.engine.containers.lifecycle import Lifecycle
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.model.store import SCHEMA, ContainerStore
from ketch.errors import RuntimeFailure
from ketch.storage.database import removals
from ketch.storage.database.db import Database, Schema
from ketch.storage.database.mark import boot_id
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path


async def test_concurrent_callers_share_the_next_sync() -> None:
    gate, begun, calls = threading.Semaphore(0), threading.Semaphore(0), []

    def sync() -> None:
        calls.append(len(calls))
        begun.release()
        assert gate.acquire(timeout=10)

    group = GroupCommit(sync)
    first = asyncio.create_task(group())
    await asyncio.to_thread(begun.acquire)
    others = [asyncio.create_task(group()) for _ in range(20)]  # the one that runs began before them
    await asyncio.sleep(0)
    gate.release()
    await first
    assert not any(task.done() for task in others)
    gate.release()
    await asyncio.gather(*others)
    assert calls == [0, 1]
    group.close()


async def test_a_failure_is_told_to_those_who_waited_for_it() -> None:
    results = iter([OSError(5, "no disk"), None])

    def sync() -> None:
        if (error := next(results)) is not None:
            raise error

    group = GroupCommit(sync)
    with pytest.raises(OSError, match="no disk"):
        await group()
    await group()
    group.close()


async def test_a_cancelled_caller_does_not_disturb_others() -> None:
    gate = threading.Event()
    group = GroupCommit(lambda: gate.wait(patient(10)) and None)
    tasks = [asyncio.create_task(group()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    gate.set()
    await asyncio.gather(*tasks[1:])
    assert tasks[0].cancelled()
    group.close()


async def test_a_database_is_synced(tmp_path: Path) -> None:
    path = str(tmp_path / "ketch.db")
    db = Database(path, [Schema("t", ("CREATE TABLE t (x)",))])
    group = GroupCommit(db.sync)
    for number in range(3):
        with db.transaction(durable=False) as tx:
            tx.execute("INSERT INTO t VALUES (?)", (number,))
        await group()
    copy = tmp_path / "copy"  # what a new process would find after a power cut: the files as they are
    copy.mkdir()
    for name in ("ketch.db", "ketch.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    group.close()
    db.close()
    again = Database(str(copy / "ketch.db"), [Schema("t", ("CREATE TABLE t (x)",))])
    assert [row["x"] for row in again.query("SELECT x FROM t")] == [0, 1, 2]
    again.close()


def made() -> Container:
    config, host = ContainerConfig(), HostConfig()
    return Container(
        id="a" * 64, name="one", created=1, image_id="sha256:0", image_ref="busybox", config=config, host=host
    )


@pytest.mark.parametrize("why", [RuntimeFailure("no"), asyncio.CancelledError()], ids=["failed", "cancelled"])
async def test_a_failed_start_is_on_the_disk_if_its_begin_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    """Else it would count as one of a container that ran, after a power cut."""
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA, removals.SCHEMA])
    synced = []
    monkeypatch.setattr(db, "sync", lambda: synced.append(db.query("SELECT record FROM containers")[0]["record"]))
    store, container = ContainerStore(db), made()
    store.add(container)
    lifecycle = SimpleNamespace(store=store)
    assert Lifecycle._record_begin(lifecycle, container)  # type: ignore[arg-type]
    await store.flush_durable()
    await Lifecycle._record_failure(lifecycle, container, why)  # type: ignore[arg-type]
    assert [json.loads(record)["state"]["starting"] for record in synced] == [boot_id(), ""]
    db.close()


async def test_a_begun_flush_is_waited_for_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA, removals.SCHEMA])
    gate, calls = threading.Semaphore(0), []

    def sync() -> None:
        calls.append(1)
        assert gate.acquire(timeout=10)
        if len(calls) == 2:
            raise OSError(5, "no disk")

    monkeypatch.setattr(db, "sync", sync)
    store = ContainerStore(db)
    container = made()
    store.add(container)
    assert store.save_best_effort(container)
    begun = store.begin_flush()
    assert store.begin_flush() is begun
    waiting = asyncio.create_task(store.flush_durable())
    store.save(container, durable=False)  # nobody waits for that
    await asyncio.sleep(0.01)
    assert not waiting.done()
    gate.release()
    await waiting
    await store.flush_durable()
    assert len(calls) == 1
    store.save(container)
    for wrong in True, False:  # what has failed is tried again
        gate.release()
        with pytest.raises(OSError, match="no disk") if wrong else contextlib.nullcontext():
            await store.flush_durable()
    assert len(calls) == 3
    db.close()
