"""Departures of clients whose connections others serve."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Departures:
    """Clients that are watched for the end of their connection, in both directions, and for nothing else.

    Bytes on these connections are a monitor's to read.  An epoll that asks for no event is told of the end alone, which
    asyncio has no way to ask for; it is itself a descriptor that can be read when there is something to be told.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, departed: Callable[[], object]) -> None:
        """Have ``departed`` called, once, when the client on a socket has gone; until then the socket stays open."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._watched[fd] = departed
        self._epoll.register(fd, 0)

    def forget(self, fd: int) -> None:
        """Watch a socket no longer; it may have departed."""
        if self._watched.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether a socket is watched still, and its client there."""
        return fd in self._watched

    def _look(self) -> None:
        assert self._epoll is not None
        for fd, _events in self._epoll.poll(0):
            departed = self._watched[fd]
            self.forget(fd)
            departed()

    def close(self) -> None:
        """Watch nobody any more."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._watched.clear()
