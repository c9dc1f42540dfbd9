"""Undo stacks: failures of steps never hide the first error."""

from __future__ import annotations

import asyncio

import pytest

from ketch.undo import AsyncUndo, Undo


def fail(text: str) -> None:
    raise RuntimeError(text)


def test_the_first_error_stays_the_error():
    done = []
    with pytest.raises(KeyError, match="first") as caught, Undo() as undo:
        undo.callback(done.append, "last")
        undo.callback(fail, "second")
        undo.callback(fail, "third")
        raise KeyError("first")
    assert done == ["last"]
    assert caught.value.__notes__ == ["clean up: third", "clean up: second"]


def test_without_an_error_the_first_failure_is_raised_when_all_is_done():
    done = []
    with pytest.raises(RuntimeError, match="one") as caught, Undo() as undo:
        undo.callback(done.append, "last")
        undo.callback(fail, "two")
        undo.callback(fail, "one")
    assert done == ["last"]
    assert caught.value.__notes__ == ["clean up: two"]


def test_the_same_in_coroutines():
    async def fail_later() -> None:
        fail("second")

    async def body() -> None:
        async with AsyncUndo() as undo:
            undo.callback(fail, "third")
            undo.push_async_callback(fail_later)
            raise KeyError("first")

    with pytest.raises(KeyError, match="first") as caught:
        asyncio.run(body())
    assert caught.value.__notes__ == ["clean up: second", "clean up: third"]
