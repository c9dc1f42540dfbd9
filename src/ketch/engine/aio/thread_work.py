"""Blocking work in a thread that is waited for to its end, also when the caller is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")


async def run_to_end(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run ``work`` in a thread; cancelled, wait for its end first, so that undoing does not run beside it."""
    return await to_the_end(asyncio.to_thread(work, *arguments))


async def to_the_end(work: Awaitable[_Result]) -> _Result:
    """Wait for ``work``; cancelled, wait for its end first."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.gather(future, return_exceptions=True)  # the cancellation is what the caller hears of
        raise
