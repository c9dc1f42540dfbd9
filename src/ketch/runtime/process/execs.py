"""Exec'd processes of one monitor, forked into the container's pid namespace."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from time import time_ns

from ketch.contexts import suppress
from ketch.errors import KetchError
from ketch.failpoints import failpoint
from ketch.linux import fdpass
from ketch.runtime.cgroups import birth
from ketch.runtime.process import messages
from ketch.runtime.process.children import exec as child
from ketch.runtime.process.children import oom_score
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.process.foreign import exec as foreign
from ketch.runtime.process.io.backlog import MUX, RAW
from ketch.runtime.process.io.streams import Streams
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping
    from typing import Any, NoReturn, Protocol

    from ketch.runtime.process.control import Controls
    from ketch.runtime.process.loop import Loop
    from ketch.runtime.protocol import Cgroups, ChildListener, ExecRecord, ExecRequest, Failed

    class ParentMonitor(Protocol):
        """The interface of the monitor; ``pid`` is that of the container's PID 1."""

        id: str
        state: str
        foreign: bool
        pid: int
        bundle: str
        run_dir: str
        cgroups: Cgroups | None
        loop: Loop
        controls: Controls

        def pass_listener_on(self, message: ChildListener, fds: list[int]) -> None:
            """Send a filter's listener to its supervisor."""

        @property
        def init_ended(self) -> bool:
            """Whether PID 1 has been waited for."""

        def drained(self) -> None:
            """Handle a client that has received everything."""


_DIED: Failed = {
    "ev": "failed",
    "kind": "setup",
    "step": "exec",
    "errno": 0,
    "message": "exec: the process died during its set-up",
}


class ExecChild:
    """One exec'd process: setup → starting → running → ended, and its streams."""

    __slots__ = ("asked", "deserted", "id", "pid", "started_at", "state", "status", "streams", "sync")

    def __init__(self, exec_id: str, streams: Streams) -> None:
        self.id = exec_id
        self.streams = streams
        self.pid = 0
        self.sync = -1
        self.started_at = 0
        self.state = "setup"
        self.status: int | None = None
        self.asked: tuple[socket, int] | None = None
        self.deserted = False  # the client is gone without whom it shall not go on


class Execs:
    """The exec'd processes by id and by pid."""

    def __init__(self, monitor: ParentMonitor) -> None:
        self._monitor = monitor
        self._by_id: dict[str, ExecChild] = {}
        self._behind: list[Streams] = []
        self._strays: dict[int, int] = {}

    def running(self) -> dict[str, int]:
        """Id → pid of the running ones."""
        return {e.id: e.pid for e in self._by_id.values() if e.state == "running"}

    def _get(self, exec_id: str) -> ExecChild:
        try:
            return self._by_id[exec_id]
        except KeyError:
            raise KetchError(f"no exec `{exec_id}` is running") from None

    def streams(self, exec_id: str) -> Streams:
        """The streams of a running exec (KetchError)."""
        return self._get(exec_id).streams

    def pid(self, exec_id: str) -> int:
        """The host pid of a running exec (KetchError)."""
        return self._get(exec_id).pid

    @property
    def lingering(self) -> bool:
        """Whether a client of an ended exec has not received everything yet."""
        self._behind = [streams for streams in self._behind if streams.busy]
        return bool(self._behind)

    @property
    def has_unsent(self) -> bool:
        """Whether output for such a client has not even been sent."""
        return any(streams.clients for streams in self._behind)

    @property
    def taken(self) -> int:
        """The number of bytes that clients of ended execs have received."""
        return sum(streams.taken for streams in self._behind)

    def begin(self, control: socket, message: ExecRequest, fds: list[int]) -> None:
        """Fork an exec; the answer is sent when its program runs or could not be executed.

        The client's socket is taken out of ``fds``.
        """
        monitor = self._monitor
        if monitor.state != "running":
            raise KetchError(f"exec: the container is {monitor.state}")
        if monitor.init_ended:  # its pid, by which namespaces are found, may be somebody else's by now
            raise KetchError("exec: the container has ended")
        if message["exec_id"] in self._by_id:
            raise KetchError(f"exec `{message['exec_id']}`: it runs already")
        initial = messages.take_early_input(message, fds)
        streams = Streams(monitor.loop, terminal=message["tty"], stdin=message["stdin"])
        exec_ = ExecChild(message["exec_id"], streams)
        exec_.asked = (control, message["seq"])
        streams.stdin_once = True
        try:
            # Attached before it is forked: no output can come too early.
            if not message["tty"] and not self._monitor.foreign:
                streams.listen()
            if fds:
                streams.attach(fds[-1], message, MUX if message.get("mux", not message["tty"]) else RAW, initial)
                fds.pop()
            exec_.sync, child_end = messages.pair()
            try:
                exec_.pid, inside = birth.fork(self._cgroup_for(message))
                if exec_.pid == 0:
                    self._in_child(exec_, message, child_end, inside=inside)
            finally:
                os.close(child_end)
        except BaseException:
            streams.discard()
            if exec_.sync >= 0:
                os.close(exec_.sync)
            raise
        failpoint("monitor.exec-forked")
        streams.forked()
        if not streams.clients and message["stdin"]:
            streams.input_ended(None)
        streams.on_end = lambda: self._output_ended(exec_)
        if message.get("hangup"):
            streams.on_lost = lambda: self._hang_up(exec_)
        self._by_id[exec_.id] = exec_
        monitor.loop.add(exec_.sync, READ, lambda _events: self._receive(exec_, message))

    def _cgroup_for(self, message: ExecRequest) -> Cgroups | None:
        """The cgroup to fork a process into, unless something comes before that: another runtime, a set of CPUs."""
        if self._monitor.foreign or "execCPUAffinity" in message["process"]:
            return None
        return self._monitor.cgroups

    def _in_child(self, exec_: ExecChild, message: ExecRequest, sync_fd: int, *, inside: bool) -> NoReturn:
        _signal.set_wakeup_fd(-1)
        monitor = self._monitor
        exec_.streams.dup_to_stdio()
        if monitor.foreign:
            oom_score.share(monitor.pid)
            place = foreign.RunningContainer(monitor.id, monitor.run_dir, monitor.bundle, monitor.pid)
            foreign.child_main(place, message, sync_fd)
        child.child_main(
            child.Target(monitor.pid, None if inside else monitor.cgroups, monitor.bundle),
            message["process"],
            Parent(sync_fd),
            tty=message["tty"],
        )

    def _receive(self, exec_: ExecChild, request: ExecRequest) -> None:
        """Handle a message of the child: ready, failed, or (end of file after ``go``) its program runs."""
        message, fds = messages.receive_from_child(exec_.sync)
        if message is not None and message["ev"] == "ready":
            exec_.state = "starting"
            if self._monitor.foreign:
                exec_.pid = message["pid"]
                exec_.status = self.claim(exec_.pid)
            if message["tty"]:
                exec_.streams.take_terminal(fds.pop())
                if not self._monitor.foreign:
                    exec_.streams.listen()
            if request.get("rows"):
                exec_.streams.resize(request["rows"], request["cols"])
            with suppress(OSError):  # it died: the end of file comes next
                fdpass.send(exec_.sync, b"go")
            return
        if message is not None and message["ev"] == "notify":
            self._monitor.pass_listener_on(message, fds)
            return
        self._monitor.loop.remove(exec_.sync)
        os.close(exec_.sync)
        if message is None and exec_.state == "starting":
            self._started(exec_)
        else:
            self._failed(exec_, message if message is not None and message["ev"] == "failed" else _DIED)

    def _started(self, exec_: ExecChild) -> None:
        exec_.state, exec_.started_at = "running", time_ns()
        if self._monitor.foreign:  # as the container's own streams
            exec_.streams.listen()
        failpoint("monitor.exec-runs")
        self._reply(exec_, {"ok": True, "pid": exec_.pid})
        if exec_.status is not None:
            exec_.streams.drain_and_close()
            self._output_ended(exec_)
        elif exec_.deserted:
            self._hang_up(exec_)

    def _hang_up(self, exec_: ExecChild) -> None:
        """Hang up a process whose client is gone, as a closed terminal does; one that does not run yet, when it does.

        What it ignores the signal for and goes on with has no terminal any more.
        """
        exec_.deserted = True
        if exec_.state == "running" and exec_.status is None:
            os.kill(exec_.pid, _signal.SIGHUP)
            exec_.streams.close_outputs()

    def _failed(self, exec_: ExecChild, error: Failed) -> None:
        exec_.state = "failed"
        del self._by_id[exec_.id]
        self._forget_strays()
        # The caller has a copy of the client's socket and tells the client why.
        exec_.streams.discard()
        self._reply(exec_, {"ok": False, "error": error})

    def _reply(self, exec_: ExecChild, answer: Mapping[str, Any]) -> None:
        if exec_.asked is not None:
            control, seq = exec_.asked
            exec_.asked = None
            self._monitor.controls.send(control, {"seq": seq, **answer})

    def claim(self, pid: int) -> int | None:
        """The wait status of a process that another runtime has made, when it ended before it was known."""
        status = self._strays.get(pid)
        self._forget_strays()
        return status

    def _forget_strays(self) -> None:
        """Forget whom nobody will claim any more: their pids are used again."""
        if not any(exec_.state == "setup" for exec_ in self._by_id.values()):
            self._strays.clear()

    def ended(self, pid: int, status: int, *, keep: bool = False) -> None:
        """Handle the end of a child other than PID 1: an exec, an orphan, or one that is not known yet.

        ``keep``: it may be PID 1, which is not known either.
        """
        if keep or (self._monitor.foreign and any(exec_.state == "setup" for exec_ in self._by_id.values())):
            self._strays[pid] = status
        for exec_ in self._by_id.values():
            if exec_.pid == pid:
                exec_.status = status
                if exec_.state == "running":
                    # Its children may hold its outputs for ever: Docker's clients still want the end now.
                    exec_.streams.drain_and_close()
                    self._output_ended(exec_)
                return

    def _output_ended(self, exec_: ExecChild) -> None:
        if exec_.status is None or exec_.state != "running":
            return
        exec_.state = "ended"
        del self._by_id[exec_.id]
        record: ExecRecord = {"code": messages.exit_code(exec_.status), "at": time_ns()}
        failpoint("monitor.exec-ended")
        # First this: a client that sees its connection end asks ketchd for the exit code at once.
        if not self._monitor.controls.broadcast(
            {"ev": "exec_exit", "exec_id": exec_.id, "code": record["code"], "at": record["at"]}
        ):
            with suppress(OSError):
                messages.write_record(self._monitor.run_dir, f"exec-{exec_.id}.json", record)
        exec_.streams.finish(
            {
                "ExitCode": record["code"],
                "OOMKilled": False,
                "StartedAt": exec_.started_at,
                "FinishedAt": record["at"],
            }
        )
        if exec_.streams.busy:
            exec_.streams.on_drained = self._monitor.drained
            self._behind.append(exec_.streams)

    def close_outputs(self) -> None:
        """Close the outputs of all execs when the container has ended."""
        for exec_ in list(self._by_id.values()):
            if exec_.state != "running":
                self._monitor.loop.remove(exec_.sync)
                os.close(exec_.sync)
                self._failed(exec_, _DIED)
                continue
            if exec_.status is None:
                exec_.status = 9
            exec_.streams.drain_and_close()
            self._output_ended(exec_)
