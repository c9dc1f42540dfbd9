"""Processes added to running containers (``exec``): records in memory, the processes with the monitor."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch import pidfd
from ketch.engine.aio.streams import ClientStream
from ketch.engine.containers import validate
from ketch.engine.execs import tree
from ketch.engine.model import names
from ketch.engine.model.execs import Exec, ExecConfig
from ketch.engine.model.records import Status
from ketch.engine.monitors.monitor_client import ExecProcess, StreamOptions
from ketch.engine.spec import bundle
from ketch.errors import (
    PROGRAM_EXIT_CODES,
    Conflict,
    InvalidArgument,
    KetchError,
    NotFound,
    RuntimeFailure,
    UnclassifiedArgument,
)
from ketch.failpoints import failpoint
from ketch.runtime.process.io import detach
from ketch.runtime.security import users
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.events.bus import EventBus
    from ketch.engine.files.container_view import ContainerViews
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.paths import ContainerPaths

log = logging.getLogger(__name__)
_KEPT_S = 300.0  # how long an ended exec can be inspected at least (dockerd: 5 to 10 minutes)
_BEGIN_S = 10.0  # how long a resize waits for the start, as dockerd's
_MANY, _MOST = 1000, 10_000  # records of which nobody need think; ended ones that are kept at most


class Overdue(TimeoutError):
    """The end of a command that took too long, with what it has said until then."""

    def __init__(self, output: bytes, whole: bool) -> None:
        super().__init__()
        self.output, self.whole = output, whole


class ExecService(Struct, eq=False):
    """All execs since the daemon started; the record of an ended one stays for some minutes, as dockerd's does."""

    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    events: EventBus
    links: Links
    views: ContainerViews
    apparmor: AppArmorProfiles
    _execs: dict[str, Exec] = field(default_factory=dict)
    _ends: dict[str, asyncio.Future[int]] = field(default_factory=dict)

    def get(self, exec_id: str) -> Exec:
        """The exec of an id (NotFound, also for one that did not begin before its container's end)."""
        found = self._execs.get(exec_id)
        if found is None or not (found.started or self._may_begin(found)):
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def _may_begin(self, exec_: Exec) -> bool:
        """Whether the container still is in the run for which this was made."""
        container = self.store.ids.get(exec_.container_id)
        return container is not None and container.state.running and container.state.started_at == exec_.run

    def of(self, container_id: str) -> list[str]:
        """Ids of the execs that run in a container."""
        return [e.id for e in self._execs.values() if e.container_id == container_id and e.running]

    def shown_of(self, container_id: str) -> list[str]:
        """Ids of the execs that run in a container or may still begin."""
        mine = [e for e in self._execs.values() if e.container_id == container_id]
        return [e.id for e in mine if e.running or (not e.started and self._may_begin(e))]

    def create(self, ref: str, config: ExecConfig) -> Exec:
        """Register a command; the container must be running (Conflict)."""
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        try:
            detach.parse(config.detach_keys)
        except InvalidArgument as e:
            raise UnclassifiedArgument(f"Invalid escape keys ({config.detach_keys}) provided", hint=e.hint) from e
        container = self.store.get(ref)
        self._check_running(container, ref)
        exec_ = Exec(id=names.new_id(), container_id=container.id, config=config, run=container.state.started_at)
        self._forget_old()
        self._execs[exec_.id] = exec_
        self.events.of_container(container, f"exec_create: {_shown(config.cmd)}", execID=exec_.id)
        return exec_

    async def check_user(self, ref: str, config: ExecConfig) -> None:
        """Refuse a user or group that is not in the container's files (InvalidArgument), before anything starts."""
        if config.user:
            container = self.store.get(ref)
            self._check_running(container, ref)
            groups = ",".join(container.host.group_add or ())
            await in_own_thread(functools.partial(_look_up, container.state.pid, config.user, groups))

    def _check_running(self, container: Container, ref: str = "") -> None:
        self.views.check_files(container)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"Container {ref or container.id} is paused, unpause the container before exec")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")

    def _forget_old(self) -> None:
        """Drop records of execs that ended long ago, and of those that never began in containers that are gone."""
        if len(self._execs) <= _MANY:
            return
        ids, now = self.store.ids, time.monotonic()
        self._execs = {
            k: e
            for k, e in self._execs.items()
            if e.running or (now - e.ended_at < _KEPT_S if e.started else e.container_id in ids)
        }
        ended = sorted((e for e in self._execs.values() if e.started and not e.running), key=lambda e: e.ended_at)
        for exec_ in ended[: max(0, len(ended) - _MOST)]:
            del self._execs[exec_.id]

    async def check_startable(self, exec_id: str) -> Container:
        """Check a start before its connection is upgraded; returns the exec's container."""
        exec_ = self.get(exec_id)
        container = self.store.get(exec_.container_id)
        self._check_running(container)
        (await self.live.of(container.id).reach(container)).check_not_stopped()
        return container

    async def start(
        self,
        exec_id: str,
        detach: bool = False,
        tty: bool | None = None,
        console_size: list[int] | None = None,
        stream: ClientStream | None = None,
    ) -> None:
        """Run the command, handing ``stream`` (consumed) to it; RuntimeFailure when it cannot be started.

        ``tty``: what the client takes the output for, whatever the command has: raw and stdout alone, or with headers.
        The caller reports a failure on the stream itself when it has been upgraded, so the stream is
        closed here only after the monitor has its own copy.
        """
        exec_ = self.get(exec_id)
        container = self.store.get(exec_.container_id)
        if exec_.started:
            raise Conflict(f"exec command {exec_id} {'is already running' if exec_.running else 'has already run'}")
        self._check_running(container)
        monitor = await self.live.of(container.id).reach(container)
        config = exec_.config
        size = [n & 0xFFFF for n in validate.terminal(console_size or config.console_size) or (0, 0)]
        raw = config.tty if tty is None else tty
        await self.apparmor.prepare(container.apparmor_profile)
        process = bundle.exec_process(container, config)
        bundle.add_environment(process, self.links.environment(container))
        exec_.started = exec_.running = True
        self.events.of_container(container, f"exec_start: {_shown(config.cmd)}", execID=exec_.id)
        try:
            if any(item.startswith("=") for item in config.env or ()):
                raise RuntimeFailure("invalid environment variable: name cannot be empty", step="config")
            exec_.pid = await monitor.exec(
                exec_.id,
                ExecProcess(document=process, tty=config.tty, rows=size[0], cols=size[1]),
                stream.fd if stream is not None and not detach else None,
                StreamOptions(
                    stdin=config.attach_stdin and not detach,
                    stdout=config.attach_stdout,
                    stderr=config.attach_stderr and not raw,
                    output="raw" if raw else "mux",
                    detach_keys=config.detach_keys,
                    initial=stream.initial if stream is not None else b"",
                    ending=stream is not None and stream.told_ending,
                    hangup=stream is not None and stream.hangs_up,
                ),
            )
        except RuntimeFailure as e:
            exec_.running = False
            exec_.exit_code = PROGRAM_EXIT_CODES.get(type(e), 128)
            raise
        except KetchError:
            exec_.running, exec_.exit_code = False, 126
            raise
        finally:
            exec_.settled.set()
        exec_.begun = pidfd.start_time(exec_.pid)
        failpoint("exec.started")
        if stream is not None:
            stream.close()

    async def run(
        self, container: Container, config: ExecConfig, timeout_s: float, limit: int
    ) -> tuple[int, bytes, bool]:
        """Run a command to its end: (exit code, the first ``limit`` bytes of its output, whether that is all).

        Overdue when it takes longer (it is killed then); RuntimeFailure and Conflict as `start`.
        """
        exec_ = self.create(container.id, config)
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ends[exec_.id] = end
        end.add_done_callback(lambda _end: self._forget(exec_.id))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        stream = ClientStream(theirs.detach())
        output = _Output(limit)
        try:
            await self.start(exec_.id, stream=stream)
            async with asyncio.timeout(timeout_s):
                await output.read(ours)
                return await end, output.kept, output.whole
        except TimeoutError as e:
            raise Overdue(output.kept, output.whole) from e
        finally:
            ours.close()
            stream.close()
            if not exec_.running:
                self._forget(exec_.id)
            elif not end.done():  # the record goes when it has ended
                await self._kill(container, exec_)

    async def kill(self, exec_id: str, signal_name: str) -> None:
        """Send a signal to a running command (Conflict: it does not run); SIGKILL to all that it has started, too.

        That finds all of it, if the command adopts.
        """
        number = bundle.signal_number(signal_name)
        exec_ = self.get(exec_id)
        if not exec_.running:
            raise Conflict(f"kill exec {exec_id}: it is not running")
        if number == signal.SIGKILL and exec_.begun:
            await asyncio.to_thread(tree.kill, exec_.pid, exec_.begun)
            return
        container = self.store.get(exec_.container_id)
        monitor = await self.live.of(container.id).reach(container)
        await monitor.kill(number, exec_.id)

    def end_of(self, exec_id: str) -> asyncio.Future[int]:
        """The exit code of an exec that is about to be started."""
        end = self._ends[exec_id] = asyncio.get_running_loop().create_future()
        end.add_done_callback(lambda _end: self._ends.pop(exec_id, None))
        return end

    async def abandon(self, exec_id: str) -> None:
        """Kill a running exec that nobody waits for any more, with all that it has started."""
        with contextlib.suppress(Conflict, NotFound):  # it has ended, or does not run yet
            await self.kill(exec_id, "KILL")

    def _forget(self, exec_id: str) -> None:
        self._ends.pop(exec_id, None)
        self._execs.pop(exec_id, None)

    async def _kill(self, container: Container, exec_: Exec) -> None:
        monitor = self.live.of(container.id).monitor
        if monitor is not None:
            with contextlib.suppress(KetchError):  # it has ended just now
                await monitor.kill(9, exec_.id)

    def ended(self, exec_id: str, code: int) -> None:
        exec_ = self._execs.get(exec_id)
        if exec_ is None:
            return
        failpoint("exec.ended")
        exec_.running, exec_.exit_code, exec_.ended_at = False, code, time.monotonic()
        if (end := self._ends.get(exec_id)) is not None and not end.done():
            end.set_result(code)
        try:
            container = self.store.get(exec_.container_id)
        except NotFound:
            return
        self.events.of_container(container, "exec_die", execID=exec_id, exitCode=str(code))

    def lost(self, container_id: str) -> None:
        """End the records of execs whose monitor was killed."""
        for exec_id in self.of(container_id):
            self.ended(exec_id, 137)

    async def resize(self, exec_id: str, rows: int, cols: int) -> None:
        """Tell the exec's terminal its size in characters, as soon as it has one.

        A client that has the head of the answer to its start tells the size at once, before anything has begun.
        """
        exec_ = self.get(exec_id)
        if not exec_.pid and exec_.exit_code is None:
            try:
                async with asyncio.timeout(_BEGIN_S):
                    await exec_.settled.wait()
            except TimeoutError:
                raise KetchError("timeout waiting for exec session ready") from None
        if not exec_.pid:
            raise InvalidArgument("exec process is not started")
        if not exec_.running:
            raise NotFound(f"NotFound: process does not exist {exec_id}: not found")
        container = self.store.get(exec_.container_id)
        try:
            monitor = await self.live.of(container.id).reach(container)
            await monitor.resize(rows, cols, exec_id=exec_id)
        except KetchError:
            if exec_.running:
                raise
            raise KetchError("cannot resize a stopped container") from None  # it has ended meanwhile

    def recover(self, container: Container, running: dict[str, int]) -> None:
        """Restore, after the daemon's restart, the execs that a monitor has and those that ended meanwhile."""
        for exec_id, pid in running.items():
            self._execs[exec_id] = Exec(
                id=exec_id, container_id=container.id, config=ExecConfig(cmd=[]), running=True, started=True, pid=pid
            )
            self._execs[exec_id].begun = pidfd.start_time(pid)
        run_dir = self.paths.run_dir(container.id)
        for entry in os.listdir(run_dir) if os.path.isdir(run_dir) else ():
            if entry.startswith("exec-") and entry.endswith(".json"):
                try:
                    with open(os.path.join(run_dir, entry), encoding="utf-8") as f:
                        code = int(json.load(f)["code"])
                except (OSError, ValueError, KeyError, TypeError) as e:
                    log.warning("read the end of an exec in `%s`: %s", os.path.join(run_dir, entry), e)
                    continue
                exec_id = entry[5:-5]
                ended = Exec(id=exec_id, container_id=container.id, config=ExecConfig(cmd=[]), started=True)
                ended.exit_code, ended.ended_at = code, time.monotonic()
                self._execs[exec_id] = ended


def _shown(cmd: Sequence[str]) -> str:
    """A command as Docker's events show it: with a space at the end when it has no arguments."""
    return f"{cmd[0]} {' '.join(cmd[1:])}"


class _Output:
    """The payloads of a multiplexed stream, of which ``limit`` bytes are kept; ``whole``: that is all."""

    def __init__(self, limit: int) -> None:
        self.kept, self.whole = b"", True
        self._limit = limit

    async def read(self, sock: socket.socket) -> None:
        """Read the stream to its end."""
        loop = asyncio.get_running_loop()
        raw = b""
        while data := await loop.sock_recv(sock, 1 << 16):
            raw += data
            while len(raw) >= 8 and len(raw) - 8 >= (length := int.from_bytes(raw[4:8], "big")):
                payload, raw = raw[8 : 8 + length], raw[8 + length :]
                self.whole = self.whole and len(self.kept) + len(payload) <= self._limit
                self.kept = (self.kept + payload)[: self._limit]


def _look_up(pid: int, user: str, groups: str) -> None:
    try:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the container has just ended: the start will say so
    try:
        users.lookup(root_fd, user, groups)
    except RuntimeFailure as e:
        raise InvalidArgument(e.message) from e
    finally:
        os.close(root_fd)
