"""Following a running container's log through its monitor, as soon as that answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.engine.monitors.link import Silent
from ketch.errors import KetchError, Unavailable

if TYPE_CHECKING:
    from ketch.engine.live.containers import Live
    from ketch.engine.monitors.monitor_client import StreamOptions

_PAUSE_S = 1.0


class Follower:
    """A container whose output is followed.

    One whose monitor is stopped writes nothing: whoever follows it waits until that goes on, or the container ends.
    """

    def __init__(self, live: Live) -> None:
        self._live = live

    async def attach(self, fd: int, client: StreamOptions) -> bool:
        """Have the monitor write to ``fd``; False when the container has ended."""
        live = self._live
        while True:
            if live.monitor is None and live.pursuit is not None:
                await live.pursuit.over.wait()
            if (monitor := live.monitor) is None:
                return False
            try:
                await monitor.attach(fd, client)
            except Silent:
                await monitor.sign()
            except Unavailable:  # the connection broke: it is made anew, unless this is the end
                if monitor.exited.done():
                    return False
                await asyncio.sleep(_PAUSE_S)
            except KetchError:  # it ends just now: the files have it all
                return False
            else:
                return True
