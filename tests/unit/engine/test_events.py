"""The event bus: past and present, bounded memory, and the journal on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import pytest

from ketch.engine.events.bus import BACKLOG, EventBus
from ketch.engine.events.journal import EventJournal


@pytest.fixture
def bus(tmp_path):
    journal = EventJournal(str(tmp_path))
    yield EventBus(journal)
    journal.close()


async def collect(bus: EventBus, since: int | None, until: int | None, last: str = "") -> list[str]:
    """The actions of all events, or of those up to ``last``."""
    found = []
    async with contextlib.aclosing(bus.subscribe(since, until)) as events:
        async for event in events:
            found.append(event["Action"])
            if found[-1] == last:
                break
    return found


async def test_history_between_two_times_then_the_end(bus):
    bus.publish("container", "create", "c1", {"image": "busybox"})
    bus.publish("container", "start", "c1", {"image": "busybox"})
    assert await collect(bus, 0, time.time_ns()) == ["create", "start"]
    assert await collect(bus, time.time_ns(), time.time_ns()) == []


async def test_live_events_reach_every_subscriber_and_leave_nothing_behind(bus):
    tasks = [asyncio.create_task(collect(bus, None, None, "tag")) for _ in range(3)]
    await asyncio.sleep(0)  # each has subscribed by its first wait
    assert bus.listeners == 3
    bus.publish("image", "tag", "sha256:1", {"name": "x"})
    assert await asyncio.gather(*tasks) == [["tag"]] * 3
    assert bus.listeners == 0


async def test_the_end_may_be_in_the_future(bus):
    assert await collect(bus, None, time.time_ns() + 50_000_000) == []
    assert bus.listeners == 0


async def test_a_stuck_subscriber_is_cut_off_and_others_are_not(bus):
    stuck = bus.subscribe(None, None)
    waiting = asyncio.ensure_future(anext(stuck))
    await asyncio.sleep(0)
    for n in range(BACKLOG + 2):
        bus.publish("container", f"a{n}", "c", {})
    assert (await waiting)["Action"] == "a0"
    assert bus.listeners == 0
    await stuck.aclose()


async def test_container_events_carry_the_old_fields_too(bus):
    bus.publish("container", "die", "c1", {"image": "busybox", "exitCode": "3"})
    event = await anext(bus.subscribe(0, time.time_ns()))
    assert (event["status"], event["id"], event["from"], event["Type"]) == ("die", "c1", "busybox", "container")
    assert event["time"] == event["timeNano"] // 1_000_000_000


async def test_until_alone_is_all_of_the_past(bus):
    bus.publish("container", "create", "c1", {})
    assert await collect(bus, None, time.time_ns()) == ["create"]


async def test_past_and_present_meet_without_gap_and_double(bus):
    for n in range(600):
        bus.publish("container", f"old{n}", "c", {})
    task = asyncio.create_task(collect(bus, 0, None, "new49"))
    for n in range(50):
        await asyncio.sleep(0)
        bus.publish("container", f"new{n}", "c", {})
    assert await task == [f"old{n}" for n in range(600)] + [f"new{n}" for n in range(50)]


async def test_journal_is_there_after_a_restart_and_bounded(tmp_path):
    journal = EventJournal(str(tmp_path), max_bytes=10_000)
    bus = EventBus(journal)
    for n in range(300):
        bus.publish("container", f"a{n}", "c" * 64, {"image": "busybox"})
    journal.close()
    half = (tmp_path / "events.jsonl").read_bytes() + b'{"Type":"cont'  # the disk was full, or the power went
    (tmp_path / "events.jsonl").write_bytes(half)
    journal = EventJournal(str(tmp_path), max_bytes=10_000)
    bus = EventBus(journal)
    bus.publish("container", "after", "c", {})
    seen = await collect(bus, 0, time.time_ns())
    assert seen[-2:] == ["a299", "after"]
    first = int(seen[0][1:])
    assert seen[:-1] == [f"a{n}" for n in range(first, 300)]
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "events.jsonl.1"]
    assert sum(os.path.getsize(tmp_path / name) for name in os.listdir(tmp_path)) < 20_500
    journal.close()
