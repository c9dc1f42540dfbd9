"""The event bus: history, live delivery, bounded memory."""

from __future__ import annotations

import asyncio
import time

from ketch.engine.events import HISTORY, EventBus


async def collect(bus: EventBus, since: int | None, until: int | None) -> list[str]:
    return [event["Action"] async for event in bus.subscribe(since, until)]


async def test_history_between_two_times_then_the_end():
    bus = EventBus()
    bus.publish("container", "create", "c1", {"image": "busybox"})
    bus.publish("container", "start", "c1", {"image": "busybox"})
    assert await collect(bus, 0, time.time_ns()) == ["create", "start"]
    assert await collect(bus, time.time_ns(), time.time_ns()) == []


async def test_live_events_reach_every_subscriber_and_leave_nothing_behind():
    bus = EventBus()
    until = time.time_ns() + 300_000_000
    tasks = [asyncio.create_task(collect(bus, None, until)) for _ in range(3)]
    await asyncio.sleep(0)  # each has subscribed by its first wait
    assert bus.listeners == 3
    bus.publish("image", "tag", "sha256:1", {"name": "x"})
    assert await asyncio.gather(*tasks) == [["tag"]] * 3
    assert bus.listeners == 0


async def test_a_stuck_subscriber_is_cut_off_and_others_are_not():
    bus = EventBus()
    stuck = bus.subscribe(None, None)
    waiting = asyncio.ensure_future(anext(stuck))
    await asyncio.sleep(0)
    for n in range(HISTORY + 2):
        bus.publish("container", f"a{n}", "c", {})
    assert (await waiting)["Action"] == "a0"
    assert bus.listeners == 0
    await stuck.aclose()


async def test_container_events_carry_the_old_fields_too():
    bus = EventBus()
    bus.publish("container", "die", "c1", {"image": "busybox", "exitCode": "3"})
    event = await anext(bus.subscribe(0, time.time_ns()))
    assert (event["status"], event["id"], event["from"], event["Type"]) == ("die", "c1", "busybox", "container")
    assert event["time"] == event["timeNano"] // 1_000_000_000
