"""Work that a cancellation does not cut in two."""

from __future__ import annotations

import asyncio

import pytest

from ketch.aio.waiting import Asyncio
from ketch.errors import NotFound


class Work:
    """Work that ends when it is told to, and what is undone of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end, self.may_be_undone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.undone: list[str] = []
        self._error = error

    async def _work(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        if self._error is not None:
            raise self._error
        return "made"

    async def _undo(self, made: str) -> None:
        await self.may_be_undone.wait()
        self.undone.append(made)

    def task(self) -> asyncio.Task[str]:
        return asyncio.create_task(Asyncio().whole(self._work(), self._undo))


async def test_no_cancellation():
    work = Work()
    work.may_end.set()
    assert await work.task() == "made"
    assert work.undone == []
    work = Work(NotFound("none"))
    work.may_end.set()
    with pytest.raises(NotFound):
        await work.task()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation(fails):
    """It waits for the end of the work, and then of its undoing."""
    work = Work(NotFound("none") if fails else None)
    task = work.task()
    await work.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    work.may_end.set()
    work.may_be_undone.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.undone == ([] if fails else ["made"])


@pytest.mark.parametrize("while_undone", [False, True])
async def test_two_cancellations(while_undone):
    """The second one is not waited for, but what was made is undone all the same."""
    work = Work()
    task = work.task()
    await work.begun.wait()
    task.cancel()
    if while_undone:
        work.may_end.set()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.undone == []
    work.may_end.set()
    work.may_be_undone.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert work.undone == ["made"]
