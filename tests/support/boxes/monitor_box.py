"""Containers through launcher and monitor, with a test in the place of ketchd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ketch.engine.live.containers import Live
from ketch.engine.logs.follow import Follower
from ketch.engine.monitors.launcher import Launcher
from ketch.engine.monitors.monitor_client import Created, ExecProcess, MonitorClient, StreamOptions
from ketch.engine.spec.bundle import new_namespaces
from ketch.runtime.cgroups import monitors
from tests.support.boxes.runtime_box import Box, make_rootfs, orphaned_cgroups
from tests.support.run.session import SESSION
from tests.support.waiting import patient

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT_S = patient(15)


@dataclass
class Container:
    """One container of a `Yard`; ``monitor`` is the connection that started it."""

    name: str
    run_dir: str
    log_dir: str
    monitor: MonitorClient
    created: Created

    def monitor_pid(self) -> int:
        """The guardian's pid."""
        with open(f"{self.run_dir}/monitor.pid", encoding="ascii") as f:
            return int(f.read())

    async def code(self) -> int:
        """Wait for the exit code."""
        return (await asyncio.wait_for(asyncio.shield(self.monitor.exited), _LIMIT_S)).code


_PARENT = f"/{SESSION}m"


class Yard:
    """A launcher and the containers that were started through it; ``close`` ends and removes everything."""

    def __init__(self, directory: Path, launcher: Launcher) -> None:
        self.directory = directory
        self.launcher = launcher
        self.box = Box(directory, directory / "rootfs")
        self.box.parent = _PARENT
        self.containers: list[Container] = []

    @classmethod
    async def open(cls, directory: Path) -> Yard:
        """Make the root file system and start a launcher."""
        make_rootfs(directory / "rootfs")
        return cls(directory, await Launcher.start(f"{_PARENT}-l"))

    async def close(self) -> None:
        """Kill what still runs; nothing may be left of it."""
        for one in self.containers:
            if not one.monitor.exited.done():
                other = await connect(one.run_dir)
                if other is not None:
                    await other.kill(signal.SIGKILL)
                    await asyncio.wait_for(other.exited, _LIMIT_S)
            one.monitor.disconnect()
        await self.launcher.close()
        self.box.close()
        monitors.remove(f"{_PARENT}-l")
        assert orphaned_cgroups(self.box.parent) == []
        assert orphaned_cgroups(f"{_PARENT}-l") == []
        # What a monitor survived, but should not have met.
        assert [path.read_text() for path in self.directory.glob("run/*/monitor.err")] == []

    def message(self, args: list[str], changes: dict[str, Any] | None = None, **options: Any) -> Any:
        """A start message for ``args``; ``options`` are keys of the message or of its log."""
        spec = self.box.spec(args, changes)
        place = self.box.bundle(spec)
        name = place.name
        run_dir, log_dir = self.directory / "run" / name, place / "log"
        run_dir.mkdir(parents=True)
        log_dir.mkdir()
        overlay = [f"lowerdir={self.box.rootfs}", f"upperdir={place}/upper", f"workdir={place}/work"]
        overlay += ["idmap"] if self.box.idmap else []
        return {
            "op": "start",
            "id": name,
            "bundle": str(place),
            "run_dir": str(run_dir),
            "rootfs": [{"type": "overlay", "source": "overlay", "options": overlay}],
            "tty": options.get("tty", False),
            "stdin": options.get("stdin", False),
            "stdin_once": options.get("stdin_once", False),
            "pidns": options.get("pidns", "new"),
            "namespaces": options.get("namespaces", new_namespaces(spec)),
            "userns": any(entry["type"] == "user" for entry in spec["linux"]["namespaces"]),
            "cgroup": f"{self.box.parent}/{self.box.count - 1}",
            "log": {
                "driver": options.get("driver", "local"),
                "dir": str(log_dir),
                "max_size": options.get("max_size", 20 << 20),
                "max_files": options.get("max_files", 5),
                **options.get("log", {}),
            },
        }

    async def create(self, args: list[str], changes: dict[str, Any] | None = None, **options: Any) -> Container:
        """A container that waits for its start."""
        message = self.message(args, changes, **options)
        monitor = await self.launcher.start_container(message)
        created = await monitor.created()
        created.close()
        one = Container(message["id"], message["run_dir"], message["log"]["dir"], monitor, created)
        self.containers.append(one)
        return one

    async def start(self, args: list[str], changes: dict[str, Any] | None = None, **options: Any) -> Container:
        """A container that runs."""
        one = await self.create(args, changes, **options)
        await one.monitor.start()
        return one


def children(pid: int) -> dict[int, str]:
    """A process's children, and what they call themselves (proc_pid_comm(5))."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        pids = [int(word) for word in f.read().split()]
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                found[pid] = f.read().strip()
    return found


def process_title(pid: int) -> str:
    """The command line that a process shows; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().rstrip(b"\0").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def connect(run_dir: str) -> MonitorClient | None:
    """What a new ketchd does; None when there is no monitor whose container was told to start."""
    monitor = MonitorClient.dial(run_dir)
    return monitor if monitor is not None and await monitor.greeted(_LIMIT_S) else None


def follower(monitor: MonitorClient | None) -> Follower:
    """What follows the log of a container with this monitor."""
    return Follower(Live(monitor=monitor))


NOBODY = StreamOptions(stdout=True, stderr=True)


class Peer:
    """The client's side of an attached connection."""

    def __init__(self, *, tcp: bool = False) -> None:
        self.sock, self._given = _tcp_pair() if tcp else socket.socketpair()
        self.sock.setblocking(False)
        self.text = b""

    async def attach(self, monitor: MonitorClient, **options: Any) -> Peer:
        """Hand the other end to the container (stdout and stderr, raw, unless told otherwise)."""
        client = StreamOptions(**{"stdout": True, "stderr": True, **options})
        await monitor.attach(self._given.fileno(), client)
        self._given.close()
        return self

    async def exec(
        self,
        monitor: MonitorClient,
        name: str,
        args: list[str],
        *,
        tty: bool = False,
        rows: int = 0,
        cols: int = 0,
        **options: Any,
    ) -> int:
        """Run a command with the other end as its client; returns its pid."""
        usual = {"stdin": True, "stdout": True, "stderr": True, "output": "raw" if tty else "mux"}
        client = StreamOptions(**{**usual, **options})
        try:
            return await monitor.exec(name, process(args, tty=tty, rows=rows, cols=cols), self._given.fileno(), client)
        finally:
            self._given.close()

    async def send(self, data: bytes) -> None:
        """Type."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def half_close(self) -> None:
        """Say that there is no more input."""
        self.sock.shutdown(socket.SHUT_WR)

    async def until(self, wanted: bytes) -> bytes:
        """Read until ``wanted`` appears; returns what stood before it, keeps what comes after it."""
        while wanted not in self.text:
            self.text += await self._some()
        before, _, self.text = self.text.partition(wanted)
        return before

    async def rest(self) -> bytes:
        """Everything up to the end."""
        parts = [self.text]
        while data := await self._some(end_is_fine=True):
            parts.append(data)
        self.text = b""
        return b"".join(parts)

    async def _some(self, *, end_is_fine: bool = False) -> bytes:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), _LIMIT_S)
        assert data or end_is_fine, f"the connection ended after {self.text!r}"
        return data

    def close(self) -> None:
        """Go away."""
        self.sock.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def process(args: list[str], **terminal: Any) -> ExecProcess:
    """A process that runs as root."""
    document = {"args": args, "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    return ExecProcess(document=document, **terminal)


def pss_kib(pid: int) -> int:
    """Proportional memory of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def own_kib(pid: int) -> int:
    """Memory that a process shares with nobody: what it has come to hold, whoever else starts or ends meanwhile."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def open_fds(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
