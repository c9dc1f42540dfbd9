"""Requests that wait for a container's exit or removal."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.engine.live.containers import Live
    from ketch.engine.model.records import Container

CONDITIONS = ("", "not-running", "next-exit", "removed")


class Waiter:
    """A registered wait; ``result`` answers (exit code, error message)."""

    def __init__(self, future: asyncio.Future[tuple[int, str]]) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        """Whether the result is known."""
        return self._future.done()

    async def result(self) -> tuple[int, str]:
        """The exit code and, when the start itself failed, why."""
        return await self._future


def register(live: Live, container: Container, condition: str) -> Waiter:
    """Wait for an exit (``not-running``, ``next-exit``) or a removal (``removed``).

    A container in the pause before its restart counts as running, as with dockerd: it is waited for until its next
    end, or until somebody gives that start up.
    """
    if condition not in CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    future: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    if condition == "removed":
        live.removed_waiters.add(future)
    elif condition == "next-exit" or container.state.up:
        live.exit_waiters.add(future)
    else:
        future.set_result((container.state.exit_code, container.state.error))
    return Waiter(future)


def hold(live: Live, container: Container, fd: int) -> None:
    """Have a monitor answer the client on ``fd`` (which stays the caller's) if ketchd is not running then."""
    if live.monitor is not None:
        live.monitor.hold(fd)
    elif not container.state.running or live.pursuit is not None:
        live.held.append(os.dup(fd))  # until there is one
