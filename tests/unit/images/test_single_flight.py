"""Single flight."""

from __future__ import annotations

import asyncio

import pytest

from ketch.images.single_flight import SingleFlight


async def test_one_for_several():
    shared: SingleFlight[int] = SingleFlight()
    begun, go = 0, asyncio.Event()

    async def work(report) -> int:
        nonlocal begun
        begun += 1
        report("half")
        await go.wait()
        return 7

    heard: list[str] = []
    first = asyncio.create_task(shared.join("x", work, heard.append))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(shared.join("x", work, heard.append))
    await asyncio.sleep(0.01)
    assert (begun, heard) == (1, ["half", "half"])
    first.cancel()
    await asyncio.sleep(0.01)
    go.set()
    assert await second == 7 and shared.active() == frozenset()


async def test_the_last_one_to_leave_ends_it_and_the_next_begins_after_its_end():
    shared: SingleFlight[int] = SingleFlight()
    log: list[str] = []

    async def work(_report) -> int:
        log.append("begin")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            log.append("end")
            raise
        return 1

    async def other(_report) -> int:
        log.append("again")
        return 2

    first = asyncio.create_task(shared.join("x", work, lambda _item: None))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    assert await shared.join("x", other, lambda _item: None) == 2
    assert log == ["begin", "end", "again"]


async def test_an_error_reaches_everybody():
    shared: SingleFlight[int] = SingleFlight()

    async def work(_report) -> int:
        await asyncio.sleep(0.01)
        raise ValueError("broken")

    both = [asyncio.create_task(shared.join("x", work, lambda _item: None)) for _ in range(2)]
    for task in both:
        with pytest.raises(ValueError, match="broken"):
            await task
