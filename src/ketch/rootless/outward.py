"""The way out of the network namespace of a rootless daemon's bridges: pasta(1) of passt, or slirp4netns(1).

Either is a program of the user that copies between a device in the namespace and sockets outside.  It outlives ketchd,
as containers do, and ends with the namespace.  Published ports are not its business (`ketch.network.ports`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ketch import pidfd, programs
from ketch.errors import KetchError, Unavailable
from ketch.notation import digits
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
_READY_S = 10.0
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0  # before one that has ended is started again
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
    with Undo() as undo:
        ready, told = os.pipe()
        undo.callback(os.close, ready)
        try:
            with open(f"{pid_file}.log", "wb") as output:
                words = ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--netns-type=path"]
                process = subprocess.Popen(
                    [program, *words, f"--ready-fd={told}", network, "tap0"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(told,),
                    start_new_session=True,
                    env=programs.environment(),
                )
        finally:
            os.close(told)
        undo.callback(process.wait)
        undo.callback(process.kill)
        if not select.select([ready], [], [], _READY_S)[0] or not os.read(ready, 1):
            with open(f"{pid_file}.log", encoding="utf-8", errors="replace") as f:
                raise Unavailable(f"slirp4netns: {f.read().strip() or 'it is not ready'}")
        undo.pop_all()
        os.close(ready)
    with open(pid_file, "w", encoding="ascii") as f:
        f.write(f"{process.pid}\n")


_WAYS: dict[str, Callable[[str, str, str], None]] = {"pasta": _pasta, "slirp4netns": _slirp4netns}


class _Program(msgspec.Struct, frozen=True):
    """A program that runs: its start time, as pids are used again, and the keeper of the namespace that it is for."""

    name: str
    pid: int
    started: int
    keeper: int


class Outward:
    """The program that leads outside; ``why_not`` says why there is none, for `info`."""

    def __init__(self, network: str, keeper: int) -> None:
        """``network``: the path of the namespace in the daemon's mount namespace; ``keeper``: who keeps it."""
        self._network, self._keeper = network, keeper
        self._record = f"{network}.json"
        self.why_not = ""
        self._watch: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start the program, if the last daemon's does not run; one that ends is started again."""
        fd = self._running()
        if fd < 0:
            fd = await asyncio.to_thread(self._start)
        self._watch = asyncio.create_task(self._start_again(fd))

    async def close(self, *, end: bool) -> None:
        """Watch it no longer; ``end``: it ends as well."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        fd = self._running() if end else -1
        if fd >= 0:
            _kill(fd)
            os.close(fd)

    def _running(self) -> int:
        """A descriptor of the one that runs for this namespace; -1: none does.  That of a former one is ended."""
        try:
            with open(self._record, "rb") as f:
                known = msgspec.json.decode(f.read(), type=_Program)
            fd = pidfd.open_process(known.pid)
        except (OSError, msgspec.MsgspecError):
            return -1
        same = pidfd.start_time(known.pid) == known.started
        if same and known.keeper == self._keeper:
            return fd
        if same:
            _kill(fd)
        os.close(fd)
        return -1

    def _start(self) -> int:
        """Start one (a descriptor of it); -1: none can be, and `why_not` has the reason."""
        problems = []
        for name, begin in _WAYS.items():
            program = programs.find(name)
            if program is None:
                problems.append(f"{name} is not installed")
                continue
            try:
                begin(program, self._network, f"{self._network}.pid")
                self._remember(name)
            except (KetchError, OSError, subprocess.SubprocessError) as e:
                problems.append(e.message if isinstance(e, KetchError) else f"{name}: {e}")
                continue
            self.why_not = ""
            return self._running()
        if not self.why_not:
            log.warning("containers reach nothing outside of this machine: %s", "; ".join(problems))
        self.why_not = "; ".join(problems)
        return -1

    def _remember(self, name: str) -> None:
        with open(f"{self._network}.pid", encoding="ascii") as f:
            pid = digits.whole(f.read().strip(), 1 << 22) or 0
        started = pidfd.start_time(pid)
        if not started:
            raise Unavailable(f"{name}: it ended at once")
        with open(self._record, "wb") as f:
            f.write(msgspec.json.encode(_Program(name, pid, started, self._keeper)))

    async def _start_again(self, fd: int) -> None:
        """Wait for its end, and start one again, after a pause that grows while none can be started."""
        pause_s = _PAUSE_S
        while True:
            if fd >= 0:
                await _ended(fd)
                log.warning("the program that leads containers outside has ended: it is started again")
                pause_s = _PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            starting = asyncio.create_task(asyncio.to_thread(self._start))
            try:
                fd = await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting  # who closes ends what it starts
                raise


def _kill(fd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, signal.SIGKILL)  # pasta of 2023 stays at a SIGTERM


async def _ended(fd: int) -> None:
    """Wait for the end of a process; closes its descriptor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
