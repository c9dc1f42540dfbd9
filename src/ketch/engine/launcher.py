"""The engine's side of the launcher: have monitors forked."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from ketch.engine.shim import Monitor
from ketch.runtime.process import messages, zygote

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger(__name__)


class Launcher:
    """The zygote that forks monitors; started again when it is found dead."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self._process = process
        self._fd = fd
        self._respawning = asyncio.Lock()

    @classmethod
    async def start(cls, _exec_root: str = "") -> Launcher:
        """Start one; it gets warm while the caller goes on."""
        return cls(*zygote.spawn())

    async def start_container(self, message: dict[str, Any]) -> Monitor:
        """Have a monitor forked for the container that ``message`` describes (see `runtime.process.messages`)."""
        ours, theirs = messages.pair()
        try:
            await self._send({"op": "start", **message}, theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return Monitor(ours, str(message["run_dir"]))

    async def _send(self, message: dict[str, Any], control_fd: int) -> None:
        process = self._process
        if self._fd >= 0:
            try:
                messages.send(self._fd, message, [control_fd])
                return
            except ConnectionError:
                log.warning("the launcher (pid %d) is gone: starting another", process.pid)
        async with self._respawning:
            if self._process is process:  # else another start was faster
                await self.close()
                self._process, self._fd = zygote.spawn()
        messages.send(self._fd, message, [control_fd])

    async def close(self) -> None:
        """Let the launcher end; monitors go on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        await asyncio.to_thread(self._process.wait)
