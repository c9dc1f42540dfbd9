"""Notification that a container's memory has run out, at once and not only at its end.

The kernel announces it through a descriptor that the loop waits for: on cgroup v1 an eventfd that is registered in
``cgroup.event_control`` (Documentation/admin-guide/cgroup-v1/memory.rst §10), on v2 ``memory.events`` itself, which
becomes readable out of band (poll(2), POLLPRI) when one of its counters changes.

systemd removes a scope's cgroup as soon as its last process has ended, perhaps before anybody has read the counters.
That one of them has changed is known all the same, and the parent's counters have that kill in them as well.  They have
those of its other cgroups, too: a kill in one of these, within the same second, is taken for one here.
"""

from __future__ import annotations

import os
from select import EPOLLPRI
from time import monotonic

from ketch.contexts import suppress
from ketch.runtime.cgroups import files
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.cgroups.common import Cgroup
    from ketch.runtime.process.loop import Loop


# The kernel announces changes of one file at most every 10 ms, and those that it has put off are lost with the file.
_LOST_S = 1.0


class OomWatch:
    """A watch that calls ``notify`` each time (``count``); `end` it before the cgroup is removed.

    ``kills``: how many processes the kernel had killed at the last look.
    """

    def __init__(self, loop: Loop, notify: Callable[[], object]) -> None:
        self.count = 0
        self._loop = loop
        self._notify = notify
        self._cgroup: Cgroup | None = None
        self.kills = 0
        self._around = 0
        self._fd = -1
        self._heard_at = -_LOST_S

    def begin(self, cgroup: Cgroup, around: int | None = None) -> None:
        """Begin to watch a container, if there is a memory controller; ``around``: what its parent had counted before.

        Its program may have run for a while, and even be gone with its cgroup: what happened before is told now.
        """
        with suppress(OSError):  # then the exit record alone says so
            self._cgroup = cgroup
            now = cgroup.oom_kills_around()
            self._around = now if around is None else around
            self._fd = cgroup.watch_oom()
            if self._fd >= 0:
                self._loop.add(self._fd, READ if cgroup.version == 1 else EPOLLPRI, self._happened)
                self.kills = cgroup.oom_kills()
            else:
                self.kills = int(now > self._around)
        if self.kills:
            if cgroup.version == 1:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._fd)  # of the same moment, perhaps
            self._tell()

    def _happened(self, _events: int) -> None:
        assert self._cgroup is not None
        if self._cgroup.version == 1:
            os.eventfd_read(self._fd)
            happened = True  # before the kill, so that its count says nothing
        else:
            happened = self._heard()
        if happened:
            self._tell()

    def _heard(self) -> bool:
        """Read the counters of v2; returns whether a process was killed since the last time.

        Of a cgroup that is gone: perhaps, as the parent counts for all that are in it.
        """
        assert self._cgroup is not None
        before = self.kills
        around = self._cgroup.oom_kills_around()
        try:
            text = files.read_again(self._fd)  # the next change is announced again, also that of another counter
        except FileNotFoundError:  # systemd removes the cgroup when its last process has ended
            self._stop()
            self.kills += around > self._around
        else:
            self._heard_at = monotonic()
            self._around, self.kills = around, max(files.pairs(text).get("oom_kill", 0), before)
        return self.kills > before

    def look(self) -> None:
        """Take note of the kills until now: systemd removes the cgroup when its last process has ended."""
        if self._cgroup is None:
            return
        with suppress(OSError):
            if self._fd >= 0 and (self._loop.is_ready(self._fd) or monotonic() < self._heard_at + _LOST_S):
                self._happened(0)
            self.kills = max(self.kills, self._cgroup.oom_kills())

    def _tell(self) -> None:
        self.count += 1
        self._notify()

    def end(self) -> None:
        """Stop watching."""
        self._stop()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
