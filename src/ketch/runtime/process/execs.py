"""Exec'd processes of one monitor: forked here, born in the container's pid namespace."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from contextlib import suppress
from time import time_ns

from ketch import faults
from ketch.errors import KetchError
from ketch.linux import fdpass
from ketch.runtime.process import messages
from ketch.runtime.process.children import exec as child
from ketch.runtime.process.io.streams import Streams
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any, NoReturn, Protocol

    from ketch.runtime.process.control import Controls
    from ketch.runtime.process.loop import Loop

    class Guardian(Protocol):
        """What they need of the monitor whose children they are; ``pid`` is that of the container's PID 1."""

        state: str
        pid: int
        bundle: str
        run_dir: str
        cgroups: dict[str, Any] | None
        loop: Loop
        controls: Controls

        def drained(self) -> None:
            """A client has all that it is owed."""


_DIED = {
    "ev": "failed",
    "kind": "setup",
    "step": "exec",
    "errno": 0,
    "message": "exec: the process died during its set-up",
}


class Exec:
    """One exec'd process: setup → starting → running → ended, and its streams."""

    def __init__(self, exec_id: str, message: dict[str, Any], streams: Streams) -> None:
        self.id = exec_id
        self.message = message
        self.streams = streams
        self.pid = 0
        self.sync = -1
        self.state = "setup"
        self.status: int | None = None
        self.asked: tuple[socket, int] | None = None


class Execs:
    """All of them, by id and by pid."""

    def __init__(self, monitor: Guardian) -> None:
        self._monitor = monitor
        self._by_id: dict[str, Exec] = {}
        self._behind: list[Streams] = []

    def running(self) -> dict[str, int]:
        """Id → pid of those that run."""
        return {e.id: e.pid for e in self._by_id.values() if e.state == "running"}

    def _get(self, exec_id: str) -> Exec:
        try:
            return self._by_id[exec_id]
        except KeyError:
            raise KetchError(f"no exec `{exec_id}` is running") from None

    def streams(self, exec_id: str) -> Streams:
        """The streams of one (KetchError when it does not run)."""
        return self._get(exec_id).streams

    def pid(self, exec_id: str) -> int:
        """The host pid of one (KetchError when it does not run)."""
        return self._get(exec_id).pid

    @property
    def lingering(self) -> bool:
        """Whether a client of an ended one has not got everything yet."""
        self._behind = [streams for streams in self._behind if streams.busy]
        return bool(self._behind)

    @property
    def owing(self) -> bool:
        """Whether one of those has not even been sent everything."""
        return any(streams.clients for streams in self._behind)

    @property
    def taken(self) -> int:
        """Bytes that clients of ended ones have taken."""
        return sum(streams.taken for streams in self._behind)

    def begin(self, control: socket, seq: int, message: dict[str, Any], fds: list[int]) -> None:
        """Fork it; the answer is sent when its program runs or could not be executed.

        The client's socket is taken out of ``fds``.
        """
        monitor = self._monitor
        if monitor.state != "running":
            raise KetchError(f"exec: the container is {monitor.state}")
        if message["exec_id"] in self._by_id:
            raise KetchError(f"exec `{message['exec_id']}`: it runs already")
        streams = Streams(monitor.loop, terminal=message["tty"], stdin=bool(message.get("stdin")))
        one = Exec(message["exec_id"], message, streams)
        one.asked = (control, seq)
        streams.stdin_once = True
        try:
            # Attached before it is forked: no output can come too early.
            if not message["tty"]:
                streams.listen()
            if fds:
                streams.attach(fds[-1], {**message, "mux": not message["tty"]})
                fds.pop()
            one.sync, child_end = messages.pair()
            try:
                one.pid = os.fork()
                if one.pid == 0:
                    self._in_child(one, child_end)
            finally:
                os.close(child_end)
        except BaseException:
            streams.discard()
            if one.sync >= 0:
                os.close(one.sync)
            raise
        faults.point("monitor.exec-forked")
        streams.forked()
        if not streams.clients and message.get("stdin"):
            streams.input_ended(None)
        streams.on_end = lambda: self._output_ended(one)
        self._by_id[one.id] = one
        monitor.loop.add(one.sync, READ, lambda _events: self._speaks(one))

    def _in_child(self, one: Exec, sync_fd: int) -> NoReturn:
        _signal.set_wakeup_fd(-1)
        monitor, message = self._monitor, one.message
        _share_oom_score(monitor.pid)
        one.streams.become_stdio()
        process = message["process"]
        child.child_main(
            monitor.pid, process, sync_fd, tty=message["tty"], cgroups=monitor.cgroups, bundle=monitor.bundle
        )

    def _speaks(self, one: Exec) -> None:
        message, fds = messages.hear(one.sync)
        if message is not None and message["ev"] == "ready":
            one.state = "starting"
            if message.get("tty"):
                one.streams.listen(fds.pop())
            if one.message.get("rows"):
                one.streams.resize(one.message["rows"], one.message["cols"])
            with suppress(OSError):  # it died: the end of file comes next
                fdpass.send(one.sync, b"go")
            return
        self._monitor.loop.remove(one.sync)
        os.close(one.sync)
        if message is None and one.state == "starting":
            self._started(one)
        else:
            self._failed(one, message or _DIED)

    def _started(self, one: Exec) -> None:
        one.state = "running"
        one.message = {}
        faults.point("monitor.exec-runs")
        self._reply(one, {"ok": True, "pid": one.pid})
        if one.status is not None:
            one.streams.drain_and_cut()
            self._output_ended(one)

    def _failed(self, one: Exec, error: dict[str, Any]) -> None:
        one.state = "failed"
        del self._by_id[one.id]
        # The caller has a copy of the client's socket and tells the client why.
        one.streams.discard()
        self._reply(one, {"ok": False, "error": error})

    def _reply(self, one: Exec, answer: dict[str, Any]) -> None:
        if one.asked is not None:
            control, seq = one.asked
            one.asked = None
            self._monitor.controls.answer(control, {"seq": seq, **answer})

    def ended(self, pid: int, status: int) -> None:
        """A child of the monitor other than PID 1 has ended; those that are no exec were orphans."""
        for one in self._by_id.values():
            if one.pid == pid:
                one.status = status
                if one.state == "running":
                    # Its children may hold its outputs for ever: Docker's clients still want the end now.
                    one.streams.drain_and_cut()
                    self._output_ended(one)
                return

    def _output_ended(self, one: Exec) -> None:
        if one.status is None or one.state != "running":
            return
        one.state = "ended"
        del self._by_id[one.id]
        record = {"code": messages.exit_code(one.status), "at": time_ns()}
        faults.point("monitor.exec-ended")
        # First this: a client that sees its connection end asks ketchd for the exit code at once.
        if not self._monitor.controls.tell({"ev": "exec_exit", "exec_id": one.id, **record}):
            with suppress(OSError):
                messages.write_record(self._monitor.run_dir, f"exec-{one.id}.json", record)
        one.streams.finish()
        if one.streams.busy:
            one.streams.on_drained = self._monitor.drained
            self._behind.append(one.streams)

    def cut(self) -> None:
        """The container has ended and all these with it."""
        for one in list(self._by_id.values()):
            if one.state != "running":
                self._monitor.loop.remove(one.sync)
                os.close(one.sync)
                self._failed(one, _DIED)
                continue
            if one.status is None:
                one.status = 9
            one.streams.drain_and_cut()
            self._output_ended(one)


def _share_oom_score(pid: int) -> None:
    """Be as likely to be killed for memory as ``pid`` is: the monitor's own privilege must not be inherited."""
    with suppress(OSError):
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)
        value = os.read(fd, 16)
        os.close(fd)
        messages.write_file("/proc/self/oom_score_adj", value)
