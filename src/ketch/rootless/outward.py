"""The way out of the network namespace of a rootless daemon's bridges: pasta(1) of passt, or slirp4netns(1).

Either is a program of the user that copies between a device in the namespace and sockets outside.  It outlives ketchd,
as containers do, and ends with the namespace.  Published ports are not its business (`ketch.network.ports`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch import pidfd, programs
from ketch.errors import KetchError, Unavailable
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
_READY_S = 10.0
_PAUSE_S = 1.0  # before one that has ended is started again
_MTU = "65520"  # the longest that both take; what is longer than the machine's own is cut outside
# Nothing is forwarded by pasta itself, and the machine's loopback is not to be had through the gateway's address.
_PASTA = ["--config-net", "--quiet", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]


def _pasta(program: str, network: str, pid_file: str) -> None:
    words = [program, *_PASTA, "--netns-only", "--pid", pid_file, "--netns", network]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=_READY_S, check=False, env=programs.environment()
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "syslog" not in line]
        raise Unavailable(f"pasta: {'; '.join(lines) or done.returncode}")


def _slirp4netns(program: str, network: str, pid_file: str) -> None:
    ready, told = os.pipe()
    words = ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--netns-type=path", f"--ready-fd={told}"]
    with open(f"{pid_file}.log", "wb") as output:
        process = subprocess.Popen(
            [program, *words, network, "tap0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(told,),
            start_new_session=True,
            env=programs.environment(),
        )
    os.close(told)
    try:
        if not os.read(ready, 1):
            with open(f"{pid_file}.log", encoding="utf-8", errors="replace") as f:
                raise Unavailable(f"slirp4netns: {f.read().strip() or process.wait()}")
    finally:
        os.close(ready)
    with open(pid_file, "w", encoding="ascii") as f:
        f.write(f"{process.pid}\n")


_WAYS: dict[str, Callable[[str, str, str], None]] = {"pasta": _pasta, "slirp4netns": _slirp4netns}
_NAMES = {"passt": "pasta", "pasta": "pasta", "slirp4netns": "slirp4netns"}  # as their processes are called


class Outward:
    """The program that leads outside; ``why_not`` says why there is none, for `info`."""

    def __init__(self, network: str) -> None:
        """``network``: the path of the namespace, in the daemon's mount namespace."""
        self._network = network
        self._pid_file = f"{network}.pid"
        self.program = self.why_not = ""
        self._watch: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start the program, if the last daemon's does not run; one that ends is started again."""
        fd = self._running()
        if fd < 0:
            fd = await asyncio.to_thread(self._start)
        if fd >= 0:
            self._watch = asyncio.create_task(self._start_again(fd))

    async def close(self, *, end: bool) -> None:
        """Watch it no longer; ``end``: it ends as well."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        fd = self._running() if end else -1
        if fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)  # pasta of 2023 stays at a SIGTERM
            os.close(fd)

    def _running(self) -> int:
        """A descriptor of the one that runs; -1: none does."""
        try:
            with open(self._pid_file, encoding="ascii") as f:
                pid = digits.whole(f.read().strip(), 1 << 22)
            fd = pidfd.open_process(pid or -1)
        except (OSError, ValueError):
            return -1
        with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as f:
            name = _NAMES.get(f.read().strip().partition(".")[0])
            if name and pid and pidfd.start_time(pid):  # one that has ended stays until somebody asks for its status
                self.program = name
                return fd
        os.close(fd)
        return -1

    def _start(self) -> int:
        problems = []
        for name, begin in _WAYS.items():
            program = shutil.which(name)
            if program is None:
                problems.append(f"{name} is not installed")
                continue
            try:
                begin(program, self._network, self._pid_file)
            except (KetchError, OSError, subprocess.SubprocessError) as e:
                problems.append(e.message if isinstance(e, KetchError) else str(e))
                continue
            self.why_not = ""
            return self._running()
        self.why_not = "; ".join(problems)
        log.warning("containers reach nothing outside of this machine: %s", self.why_not)
        return -1

    async def _start_again(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        while fd >= 0:
            ended = asyncio.Event()
            loop.add_reader(fd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
            log.warning("%s has ended: it is started again", self.program)
            await asyncio.sleep(_PAUSE_S)
            fd = await asyncio.to_thread(self._start)
