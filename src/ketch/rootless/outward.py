"""The way out of the network namespace of a rootless daemon's bridges: slirp4netns(1), or pasta(1) of passt.

Either is a program of the user that copies between a device in the namespace and sockets outside.  It outlives ketchd,
as containers do, and is ended when there are none.  Published ports are not its business (`ketch.network.ports`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
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

    # Is called with the program's name and pid, and whether it is ready, for the next daemon to know.
    Begun = Callable[[str, int, bool], None]

log = logging.getLogger(__name__)
_READY_S = 10.0
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0  # before one that has ended is started again
# The longest that both take, and that of bridges, too: long datagrams come whole, since no router cuts those of IPv6.
# What is longer than the machine's own is cut outside.
_MTU = 65520
# Nothing is forwarded by pasta itself, and the machine's loopback is not to be had through the gateway's address.
DEVICE = "tap0"
_PORTS = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
_PASTA = ["--config-net", "--quiet", "--no-map-gw", *_PORTS, "-I", DEVICE, "--netns-only"]
_CONFINED = ["--enable-sandbox", "--enable-seccomp"]
_SLIRP4NETNS = ["--configure", "--disable-host-loopback", *_CONFINED, "--netns-type=path"]
_TUN = "/dev/net/tun"
# Not the machine's own addresses, which pasta takes if it is told none: containers could not reach the machine there.
_ADDRESSES = {
    4: ["-a", "169.254.2.1", "-n", "255.255.255.252", "-g", "169.254.2.2"],
    6: ["-a", "fd6b:6574:6368::1", "-g", "fd6b:6574:6368::2"],
}
_SOURCES = {4: (socket.AF_INET, "203.0.113.1"), 6: (socket.AF_INET6, "2001:db8::1")}  # of nobody (RFC 5737, 3849)


def machines_address(version: int) -> str:
    """The address with which the machine speaks to others; empty: it has no route of this family to them."""
    family, other = _SOURCES[version]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((other, 9))  # of a datagram socket: nothing is sent
            return str(sock.getsockname()[0])
    except OSError:
        return ""


def _families() -> list[int]:
    return [version for version in _ADDRESSES if machines_address(version)] or [4]


def _pasta(program: str, network: str, begun: Begun) -> None:
    pid_file = f"{network}.pid"
    words = [program, *_PASTA, "--pid", pid_file]
    for version in _families():
        words += _ADDRESSES[version]
    done = subprocess.run(
        [*words, "--netns", network],
        capture_output=True,
        text=True,
        timeout=_READY_S,
        check=False,
        env=programs.environment(),
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "syslog" not in line and "AVX2" not in line]
        raise Unavailable(f"pasta: {'; '.join(lines) or done.returncode}")
    with open(pid_file, encoding="ascii") as f:
        begun("pasta", digits.whole(f.read().strip(), 1 << 22) or 0, True)


def _slirp4netns(program: str, network: str, begun: Begun) -> None:
    words = [*_SLIRP4NETNS, f"--mtu={_MTU}"]
    if 6 in _families():
        words.append("--enable-ipv6")
    with Undo() as undo:
        ready, told = os.pipe()
        undo.callback(os.close, ready)
        try:
            with open(f"{network}.log", "wb") as output:
                process = subprocess.Popen(
                    [program, *words, f"--ready-fd={told}", network, DEVICE],
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
        begun("slirp4netns", process.pid, False)  # now: unlike pasta it does not end with its device
        if not select.select([ready], [], [], _READY_S)[0] or not os.read(ready, 1):
            with open(f"{network}.log", encoding="utf-8", errors="replace") as f:
                raise Unavailable(f"slirp4netns: {f.read().strip() or 'it is not ready'}")
        begun("slirp4netns", process.pid, True)
        undo.pop_all()
        os.close(ready)


# In the order in which they are tried: a pasta of 2023 gives no answer to who is refused or closes one direction first,
# and with those of 2025 and 2026 long uploads stood still for seconds.
_WAYS: dict[str, Callable[[str, str, Begun], None]] = {"slirp4netns": _slirp4netns, "pasta": _pasta}


def _check_device() -> None:
    """Whether devices of the kind that both programs make can be had (Unavailable)."""
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        reason = os.strerror(e.errno or 0).lower()
        raise Unavailable(f"open {_TUN}: {reason} (load the module tun; a container is given it by --device)") from e


class _Program(msgspec.Struct, frozen=True):
    """A program that runs: its start time, as pids are used again, and the name of the namespaces that it is for.

    ``ready``: whether it has said that it leads outside, or the daemon was killed meanwhile.
    """

    name: str
    pid: int
    started: int
    namespaces: str
    ready: bool


class Outward:
    """The program that leads outside; ``why_not`` says why there is none, for `info`."""

    mtu = _MTU

    def __init__(self, network: str, namespaces: str) -> None:
        """``network``: the path of the namespace in the daemon's mount namespace; ``namespaces``: their name."""
        self._network, self._namespaces = network, namespaces
        self._record = f"{network}.json"
        self.why_not = ""
        self.begun: Callable[[int], object] | None = None  # called with the pid of each program that is started
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

    def runs(self) -> bool:
        """Whether the program that the last daemon has recorded runs."""
        fd = self._running()
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def _running(self) -> int:
        """A descriptor of the one that runs for this namespace; -1: none does.

        That of a former namespace, and one of which nobody knows whether it is ready, are ended.
        """
        try:
            with open(self._record, "rb") as f:
                known = msgspec.json.decode(f.read(), type=_Program)
            fd = pidfd.open_process(known.pid)
        except (OSError, msgspec.MsgspecError):
            return -1
        same = pidfd.start_time(known.pid) == known.started
        if same and known.ready and known.namespaces == self._namespaces:
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
                _check_device()
                begin(program, self._network, self._remember)
            except (KetchError, OSError, subprocess.SubprocessError) as e:
                problems.append(e.message if isinstance(e, KetchError) else f"{name}: {e}")
                continue
            self.why_not = ""
            return self._running()
        if not self.why_not:
            log.warning("containers reach nothing outside of this machine: %s", "; ".join(problems))
        self.why_not = "; ".join(problems)
        return -1

    def _remember(self, name: str, pid: int, ready: bool) -> None:
        started = pidfd.start_time(pid)
        if not started:
            raise Unavailable(f"{name}: it ended at once")
        with open(f"{self._record}.new", "wb") as f:
            f.write(msgspec.json.encode(_Program(name, pid, started, self._namespaces, ready)))
        os.rename(f"{self._record}.new", self._record)
        if ready and self.begun is not None:
            self.begun(pid)

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
