"""The monitor: one container's parent and guardian.

    launcher ──fork──► monitor ──fork──► PID 1            (process.init)
                          ├──fork──► exec'd process …     (process.exec)
                          ├── control connections: ketchd, however often it restarts
                          └── attached clients' own sockets

It keeps stdio, writes the log, forks exec'd processes, and keeps the exit status: on disk before anyone is
told.  It needs nobody: when ketchd and the launcher die it goes on.  One thread, one epoll loop.

    states      setup ──created──► created ──start──► running ──exit──► done (until slow clients have all)
                  └──── failed ──────┴── start fails: everything undone, process ends
"""

from __future__ import annotations

import _signal
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, socket
from contextlib import suppress
from time import monotonic, time_ns
from typing import TYPE_CHECKING

from ketch.errors import KetchError
from ketch.linux import fdpass, prctl
from ketch.runtime import logformat
from ketch.runtime.cgroups import common
from ketch.runtime.failure import to_message
from ketch.runtime.process import init, messages
from ketch.runtime.process.execs import Execs
from ketch.runtime.process.loop import READ, Loop
from ketch.runtime.process.streams import Streams

if TYPE_CHECKING:
    from typing import Any, NoReturn

# After PID 1 has ended: how long something else may hold its outputs, and a client may take none.
_DRAIN_S = 5.0
_LINGER_S = 60.0


def main(message: dict[str, Any], control_fd: int) -> NoReturn:
    """Run in a process that the launcher forked; never returns."""
    code = 1
    try:
        Monitor(message, control_fd).run()
        code = 0
    finally:
        os._exit(code)


class Monitor:
    """The state of one container's guardian; only its own loop touches it."""

    def __init__(self, message: dict[str, Any], control_fd: int) -> None:
        self.id: str = message["id"]
        self.bundle: str = message["bundle"]
        self.run_dir: str = message["run_dir"]
        self._message = message
        self.loop = Loop()
        self.state = "setup"
        self.pid = 0
        self._started_at = 0
        self.cgroups: dict[str, Any] | None = None
        self._sync = -1
        self._start_seq: tuple[socket, int] | None = None
        self._status: int | None = None
        self._controls: list[socket] = []
        self._first = socket(fileno=control_fd)
        self.children: dict[int, Any] = {}

    def run(self) -> None:
        """Set up, then serve until the container has ended and everybody has what is theirs."""
        os.setsid()
        prctl.set_child_subreaper()
        for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE):
            _signal.signal(number, _signal.SIG_IGN)
        self._watch_children()
        self._add_control(self._first)
        try:
            self._set_up()
        except (OSError, KetchError) as e:
            self._fail(to_message(e))
            return
        self.loop.run()

    # -- set-up ----------------------------------------------------------------------------------

    def _watch_children(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._wakeup = reader
        self.loop.add(reader, READ, self._reap)

    def _set_up(self) -> None:
        message = self._message
        log = message["log"]
        writer = None
        if log["driver"] != "none":
            writer = logformat.Writer(log["dir"], log["max_size"], log["max_files"])
        self.streams = Streams(self.loop, terminal=message["tty"], stdin=message["stdin"], log=writer)
        self.streams.log_dir = log["dir"]
        self.streams.stdin_once = message["stdin_once"]
        self.streams.on_end = self._output_ended
        self.execs = Execs(self)
        self._listen()
        parent_end, child_end = messages.pair()
        self.pid = init.fork_child(message.get("pidns", "new"))
        if self.pid == 0:
            self._in_child(child_end)
        os.close(child_end)
        self.streams.forked()
        if not message["tty"]:
            self.streams.listen()
        self._sync = parent_end
        self.loop.add(parent_end, READ, self._child_speaks)

    def _in_child(self, sync_fd: int) -> NoReturn:
        _signal.set_wakeup_fd(-1)
        self.streams.become_stdio()
        init.child_main(self.bundle, self._message["rootfs"], sync_fd, tty=self._message["tty"])

    def _listen(self) -> None:
        """Listen in the run directory, by a short path: socket names have only 107 bytes."""
        with open(os.path.join(self.run_dir, "monitor.pid"), "w", encoding="ascii") as f:
            f.write(f"{os.getpid()}\n")
        path = os.path.join(self.run_dir, messages.CONTROL_SOCKET)
        with suppress(FileNotFoundError):
            os.unlink(path)
        directory = os.open(self.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK)
        self._listener.bind(f"/proc/self/fd/{directory}/{messages.CONTROL_SOCKET}")
        os.close(directory)
        self._listener.listen(8)
        self.loop.add(self._listener.fileno(), READ, self._accept)

    def _child_speaks(self, _events: int) -> None:
        """The child is ready, or has failed, or (after "go") its program runs: end of file."""
        try:
            message, fds = messages.receive(self._sync)
        except OSError:
            message, fds = None, []
        if message is None:
            self._end_sync()
            if self.state == "starting":
                self._started()
            elif self.state == "setup":
                self._fail({"ev": "failed", "kind": "setup", "step": "init", "errno": 0,
                            "message": "start container: its first process died during the set-up"})  # fmt: skip
        elif message["ev"] == "ready":
            self._created(message, fds)
        else:
            self._end_sync()
            self.cgroups = message.get("cgroups") or self.cgroups
            self._fail(message)

    def _end_sync(self) -> None:
        self.loop.remove(self._sync)
        os.close(self._sync)
        self._sync = -1

    def _created(self, message: dict[str, Any], fds: list[int]) -> None:
        self.state = "created"
        self.cgroups = message.get("cgroups")
        if message.get("tty"):
            self.streams.listen(fds.pop())
        self.tell({"ev": "created", "pid": self.pid}, fds)
        for fd in fds:
            os.close(fd)
        if not self._controls:
            self._fail({"ev": "failed"})

    def _started(self) -> None:
        self.state = "running"
        self._started_at = time_ns()
        # The message was needed for the set-up only; what is left of it is the container's for days.
        self._message = {}
        if self._start_seq is not None:
            control, seq = self._start_seq
            self._answer(control, {"seq": seq, "ok": True, "started_at": self._started_at})
        if self._status is not None:
            self._init_ended(self._status)

    def _fail(self, message: dict[str, Any]) -> None:
        """Undo everything, say why, end."""
        self.state = "failed"
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, 9)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self._remove_cgroup()
        for name in ("monitor.pid", messages.CONTROL_SOCKET):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.run_dir, name))
        if self._start_seq is not None:
            control, seq = self._start_seq
            self._answer(control, {"seq": seq, "ok": False, "error": message})
        else:
            self.tell(message)
        if hasattr(self, "streams"):
            self.streams.cut()
            self.streams.finish()
        self.loop.running = False

    def _remove_cgroup(self) -> None:
        cgroup = common.open(self.cgroups) if self.cgroups else None
        if cgroup is None and self._message.get("cgroup"):
            cgroup = common.at(self._message["cgroup"])
        if cgroup is not None:
            with suppress(OSError, KetchError):
                cgroup.kill()
            with suppress(OSError, KetchError):
                cgroup.remove()

    # -- control connections ---------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        control = socket(fileno=fd)
        self._add_control(control)
        hello = {"ev": "hello", "id": self.id, "pid": self.pid, "started_at": self._started_at, "state": self.state}
        self._answer(control, {**hello, "execs": self.execs.running()})

    def _add_control(self, control: socket) -> None:
        control.setblocking(False)
        self._controls.append(control)
        self.loop.add(control.fileno(), READ, lambda _events: self._request(control))

    def _drop_control(self, control: socket) -> None:
        if control in self._controls:
            self._controls.remove(control)
            self.loop.remove(control.fileno())
            control.close()
        if not self._controls and self.state in ("setup", "created"):
            # Nobody is left who could say start: the container was never acknowledged.
            self._fail({"ev": "failed"})

    def _answer(self, control: socket, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> bool:
        try:
            messages.send(control, message, fds)
        except OSError:  # gone, or it does not read: it can connect again
            self._drop_control(control)
            return False
        return True

    def tell(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> bool:
        """Tell every connection; False when there was none to hear it."""
        return any([self._answer(control, message, fds) for control in list(self._controls)])

    def _request(self, control: socket) -> None:
        try:
            message, fds = messages.receive(control)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message, fds = None, []
        if message is None:
            self._drop_control(control)
            return
        seq = message.get("seq", 0)
        try:
            answer = self._perform(control, seq, message, fds)
        except (KetchError, OSError, KeyError) as e:
            answer = {"ok": False, "error": to_message(e)}
        finally:
            for fd in fds:
                os.close(fd)
        if answer is not None:
            self._answer(control, {"seq": seq, "ok": True, **answer})

    def _perform(self, control: socket, seq: int, message: dict[str, Any], fds: list[int]) -> dict[str, Any] | None:
        """Carry out one request; descriptors that are kept are taken out of ``fds``. None: answered later."""
        op = message["op"]
        if op == "start":
            return self._start(control, seq)
        if op == "attach":
            streams = self.execs.streams(message["exec_id"]) if message.get("exec_id") else self.streams
            streams.attach(fds.pop(), message)
            if streams.ended and self.state == "done":
                streams.finish()
        elif op == "exec":
            self.execs.begin(control, seq, message, fds.pop() if fds else -1)
            return None
        elif op == "resize":
            streams = self.execs.streams(message["exec_id"]) if message.get("exec_id") else self.streams
            streams.resize(message["rows"], message["cols"])
        elif op == "kill":
            pid = self.execs.pid(message["exec_id"]) if message.get("exec_id") else self.pid
            if self._status is None:
                os.kill(pid, message["signal"])
        elif op == "status":
            return {"state": self.state, "pid": self.pid, "started_at": self._started_at}
        else:
            raise KetchError(f"control request `{op}`: unknown")
        return {}

    def answer(self, control: socket, message: dict[str, Any]) -> None:
        """An answer that comes later than its request."""
        if control in self._controls:
            self._answer(control, message)

    def _start(self, control: socket, seq: int) -> dict[str, Any] | None:
        if self.state != "created":
            raise KetchError(f"start container: it is {self.state}")
        self.state = "starting"
        self._start_seq = (control, seq)
        try:
            fdpass.send(self._sync, b"go")
        except OSError:
            self._end_sync()
            self._fail({"ev": "failed", "kind": "setup", "step": "init", "errno": 0,
                        "message": "start container: its first process died before the start"})  # fmt: skip
        return None

    # -- the end ---------------------------------------------------------------------------------

    def _reap(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.read(self._wakeup, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self._status = status
                if self.state == "running":
                    self._init_ended(status)
            else:
                self.execs.ended(pid, status)

    def _init_ended(self, _status: int) -> None:
        """PID 1 is gone: nothing of the container may stay, and its outputs must end soon."""
        if self.cgroups:
            with suppress(OSError, KetchError):
                common.open(self.cgroups).kill()
        if self.streams.ended:
            self._output_ended()
        else:
            self.loop.deadline = monotonic() + _DRAIN_S
            self.loop.on_deadline = self.streams.cut

    def _output_ended(self) -> None:
        if self._status is not None and self.state == "running":
            self._record_exit(self._status)

    def _record_exit(self, status: int) -> None:
        """Everything is read: write the record, then tell, then let the clients go."""
        self.state = "done"
        oom = False
        if self.cgroups:
            cgroup = common.open(self.cgroups)
            with suppress(OSError, KetchError):
                oom = cgroup.oom_kills() > 0
        record = {"code": messages.exit_code(status), "at": time_ns(), "oom": oom}
        with suppress(OSError):  # the exec root may be gone; ketchd, if it is there, is told all the same
            messages.write_record(self.run_dir, messages.EXIT_RECORD, record)
        self.execs.cut()
        self._remove_cgroup()
        self.streams.finish()
        self.tell({"ev": "exit", **record})
        self.loop.remove(self._listener.fileno())
        self._listener.close()
        with suppress(OSError):
            os.unlink(os.path.join(self.run_dir, messages.CONTROL_SOCKET))
        self.loop.deadline = monotonic() + _LINGER_S
        self.loop.on_deadline = self._give_up
        self.streams.on_drained = self._give_up
        if not self.streams.clients:
            self.loop.running = False

    def _give_up(self) -> None:
        self.loop.running = False
