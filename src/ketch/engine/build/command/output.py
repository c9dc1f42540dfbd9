"""Output of a command, from its monitor: frames on a connection become calls, in the order in which they came.

The monitor waits with its command while its connection is full, and closes it when everything was read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.notation.stream_frames import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable


class CommandOutput(asyncio.Protocol):
    """The reading end; ``ended`` is done when all of it was passed on, and fails with what ``output`` raised."""

    def __init__(self, output: Callable[[int, bytes], None]) -> None:
        self._output = output
        self._unread = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Pass on the whole frames among what was received."""
        self._unread += data
        at = 0
        while len(self._unread) - at >= HEADER.size:
            stream, length = HEADER.unpack_from(self._unread, at)
            end = at + HEADER.size + length
            if end > len(self._unread):
                break
            self._output(stream, bytes(self._unread[at + HEADER.size : end]))
            at = end
        del self._unread[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nothing more comes."""
        if self.ended.done():
            return
        if exc is None or isinstance(exc, OSError):  # a monitor that was killed has reset it
            self.ended.set_result(None)
        else:
            self.ended.set_exception(exc)
            self.ended.exception()  # retrieved: nobody may ever ask, and that is no fault
