"""The engine's client of the launcher, which forks monitors."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

from ketch.engine.monitors.link import Silent
from ketch.engine.monitors.monitor_client import MonitorClient
from ketch.errors import FailedPrecondition, Unavailable
from ketch.runtime.process import messages, zygote

if TYPE_CHECKING:
    from ketch.engine.monitors.monitor_client import Created
    from ketch.runtime.protocol import LauncherReady, StartContainer

log = logging.getLogger(__name__)
_ROOM_S, _ROOM_PAUSE_S = 6.0, 0.02
_END_S = 3.0
_WARM_S = 30.0


class Launcher:
    """The zygote that forks monitors; started again when it is found dead."""

    def __init__(self, cgroup: str, soft_files: int | None = None) -> None:
        self._cgroup = cgroup
        self._soft_files = soft_files
        self._respawning = asyncio.Lock()
        self._spawn()

    @classmethod
    async def start(cls, cgroup: str, soft_files: int | None = None) -> Launcher:
        """Start a launcher, without waiting for it (`ready`); monitors are in the cgroup ``cgroup``.

        ``soft_files`` is containers' soft limit of open files; without, it is that of this process.
        """
        return cls(cgroup, soft_files)

    def _spawn(self) -> None:
        self._spawned = zygote.spawn(self._cgroup, self._soft_files)
        self._process, self._fd = self._spawned.process, self._spawned.fd
        os.set_blocking(self._fd, False)

    async def ready(self) -> None:
        """Wait until the launcher can fork monitors (FailedPrecondition, with the last line that it wrote)."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        message: LauncherReady | None = None
        loop.add_reader(self._fd, readable.set)
        try:
            async with asyncio.timeout(_WARM_S):
                await readable.wait()
            message, _ = messages.receive(self._fd)
        except (TimeoutError, ConnectionError) as e:
            log.debug("the launcher (pid %d): %r", self._process.pid, e)
        finally:
            loop.remove_reader(self._fd)
        if message is None:
            await self.close()
            why = self._spawned.last_stderr_line() or f"exit code {self._process.returncode}"
            raise FailedPrecondition(f"the launcher, which starts containers, cannot start: {why}")
        if message["cgroup"]:
            log.warning("monitors stay in the cgroup of ketchd, and end when that is ended: %s", message["cgroup"])

    async def start_container(self, message: StartContainer) -> MonitorClient:
        """Have a monitor forked for the container that ``message`` describes."""
        ours, theirs = messages.pair()
        try:
            await self._send(message, theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return MonitorClient(ours, message["run_dir"])

    async def created(self, monitor: MonitorClient) -> Created:
        """Wait for the first process of a container whose start was asked for (`MonitorClient.created`).

        A launcher that does not read what it was sent would carry it out some time, beside another start of the same
        container: it is replaced.
        """
        process = self._process
        try:
            return await monitor.created()
        except Silent:
            if self._process is process and not self._stuck():
                raise
            await self._replace(process)
            raise Unavailable(
                f"start container: the launcher (pid {process.pid}) did not answer, and was replaced",
                hint="start the container again",
            ) from None

    def _stuck(self) -> bool:
        """Whether the launcher has not read its requests (unix(7), SIOCOUTQ), or is gone."""
        if self._fd < 0 or self._process.poll() is not None:
            return True
        answer = fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0" * 4)  # the same number as SIOCOUTQ
        return int.from_bytes(answer, sys.byteorder) > 0

    async def _replace(self, process: subprocess.Popen[bytes]) -> None:
        """Replace a launcher by a new one, unless that has been done."""
        async with self._respawning:
            if self._process is process:
                log.warning("the launcher (pid %d) is gone or does not answer: starting another", process.pid)
                process.kill()
                await self.close()
                if last_line := self._spawned.last_stderr_line():
                    log.warning("the last line that it wrote: %s", last_line)
                self._spawned.forget()
                self._spawn()
                await self.ready()

    async def _send(self, message: StartContainer, control_fd: int) -> None:
        for _ in range(2):
            process = self._process
            try:
                if self._fd >= 0 and await self._sent(self._fd, message, control_fd):
                    return
            except ConnectionError:
                log.debug("the launcher (pid %d) is gone", process.pid)
            await self._replace(process)
        raise Unavailable("start container: the launcher ended again at once")

    async def _sent(self, fd: int, message: StartContainer, control_fd: int) -> bool:
        """Send a request; False when the socket is full of unread ones."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ROOM_S
        while loop.time() < deadline:
            try:
                messages.send(fd, message, [control_fd])
            except BlockingIOError:
                await asyncio.sleep(_ROOM_PAUSE_S)
                if fd != self._fd:  # it was replaced meanwhile
                    return False
            else:
                return True
        return False

    async def close(self) -> None:
        """Let the launcher end; monitors go on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            await asyncio.to_thread(self._process.wait, _END_S)
        except subprocess.TimeoutExpired:  # it is stopped
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
