"""The monitor: the parent process of one container.

    launcher ──fork──► monitor ──fork──► PID 1            (children.init)
                          ├──fork──► exec'd process …     (children.exec)
                          ├── control connections: ketchd, however often it restarts
                          └── attached clients' own sockets

It keeps stdio, writes the log, forks exec'd processes, and keeps the exit status: on disk before anyone is
told.  It needs nobody: when ketchd and the launcher die it goes on.  One thread, one epoll loop.

    states      setup ──netns──► created ──start──► starting ──exec──► running ──exit──► ended ──record──► done
                  └─── failed ──────┴───────────────────┘   everything undone, process ends

``done`` lasts until slow clients have taken what they are owed.  At the end the order is: outputs read to
their end, log complete, exit record written, cgroup removed, ketchd told, clients closed: whoever hears of
the exit finds everything in its place, and who sees its connection end can ask ketchd for the exit code.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socket
from time import monotonic, time_ns

from ketch.contexts import suppress
from ketch.errors import KetchError
from ketch.failpoints import failpoint, follow, follow_no_more, followed
from ketch.linux import fdpass, prctl
from ketch.notation import documents
from ketch.runtime import namespaces
from ketch.runtime.cgroups import birth, common
from ketch.runtime.failure import to_message
from ketch.runtime.process import ending, messages, report, signals
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.process.control import Controls
from ketch.runtime.process.execs import Execs
from ketch.runtime.process.foreign import container as foreign
from ketch.runtime.process.foreign import remains
from ketch.runtime.process.foreign.kills import Kills
from ketch.runtime.process.io.backlog import BELL, FRAMES, MUX, RAW
from ketch.runtime.process.io.log_drivers import open_log
from ketch.runtime.process.io.streams import Streams
from ketch.runtime.process.loop import READ, Loop
from ketch.runtime.process.oom import OomWatch
from ketch.runtime.process.waits import Waits
from ketch.runtime.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from ketch.runtime.oci_types import OciHookState
    from ketch.runtime.process.children.parent import Prepared
    from ketch.runtime.protocol import (
        Answer,
        AttachRequest,
        Cgroups,
        ChildListener,
        ChildReady,
        ExitRecord,
        Failed,
        FirstProcess,
        KillRequest,
        MonitorRequest,
        MonitorState,
        ProcessEnding,
        StartContainer,
    )
    from ketch.runtime.title import Title

# After PID 1 has ended: how long something else may hold its outputs, and a client may take nothing at all.
_DRAIN_S = 5.0
_AGAIN_S = 1.0  # between two tries to write the exit record
_LINGER_S = 60.0
_PART_S = 2.0  # and how long one that has everything may leave its connection open
_OOM_SCORE = b"-998"


def begin(title: Title, message: StartContainer, control_fd: int, prepared: Prepared | None = None) -> NoReturn:
    """Run in a process that the launcher forked; never returns."""
    if message.get("timing") and followed() is None:  # not forked for it
        follow()
    try:
        if prepared is None:
            settle()
        Monitor(message, control_fd, prepared, title).run()
    except BaseException:
        report.exception(message["run_dir"])
    os._exit(0)


def settle() -> None:
    """Become a process of its own, which adopts what its children leave, and has nobody's streams."""
    # Whoever waits for the end of ketchd's stdout must not have to wait for its containers; 0 is /dev/null.
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.setsid()
    prctl.set_child_subreaper()


class Monitor:
    """The monitor of one container, run by its own loop."""

    def __init__(self, message: StartContainer, control_fd: int, prepared: Prepared | None, title: Title) -> None:
        self.id: str = message["id"]
        self.bundle: str = message["bundle"]
        self.run_dir: str = message["run_dir"]
        self.foreign = "runtime" in message
        self._message: StartContainer | None = message
        self._prepared = prepared
        self._title = title
        self._cgroup_path = message.get("cgroup", "")
        self.loop = Loop()
        self.loop.on_error = lambda: report.exception(self.run_dir)
        self.controls = Controls(self.loop, self.run_dir, self._serve, self._hello, self._connections_lost)
        self.waits = Waits(self.loop, self.controls)
        self._first = socket(AF_UNIX, SOCK_SEQPACKET, 0, control_fd)
        self.state = "setup"
        self.pid = 0
        self._driver = 0  # the process that has another runtime make the container (`runtime.process.foreign`)
        self._started_at = 0
        self.cgroups: Cgroups | None = None
        self._sync = -1
        self._passing = 0  # the process that forks the first one, until it has done so (`children.crossing`)
        self._network: list[int] = []  # what ketchd gets with the first process, if it was there before that
        self._was_ready = False
        self._failure: Failed | None = None
        self._start: tuple[socket, int] | None = None
        self._status: int | None = None
        self._ending: ProcessEnding | None = None
        self.streams: Streams | None = None
        self.execs = Execs(self)
        self._oom = OomWatch(self.loop, lambda: self.controls.broadcast({"ev": "oom"}))
        self._progress = 0

    def run(self) -> None:
        """Set up, then serve until the container has ended and every client has its output."""
        self._wakeup = signals.watch()
        self.loop.add(self._wakeup, READ, self._reap)
        self.controls.add(self._first)
        failpoint("monitor.begun")
        assert self._message is not None
        try:
            self._set_up(self._message)
        except (OSError, KetchError) as e:
            self._fail(to_message(e))
            return
        with suppress(OSError):  # when memory is short the kernel shall take the container, not its monitor
            messages.write_file("/proc/self/oom_score_adj", _OOM_SCORE)
        gc.enable()  # the launcher's frozen heap is not looked at; this one lives for months
        self.loop.run()

    # -- set-up ----------------------------------------------------------------------------------

    def _set_up(self, message: StartContainer) -> None:
        """Fork the child, then set up the rest, concurrently."""
        self.streams = Streams(self.loop, terminal=message["tty"], stdin=message["stdin"])
        self.streams.stdin_once = message["stdin_once"]
        self.streams.on_end = self._output_ended
        self.streams.on_drained = self.drained
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._sync, self.pid = prepared.sync_fd, prepared.pid
            self._passing = self.pid if prepared.passing else 0
            told: FirstProcess = {
                "id": self.id,
                "bundle": self.bundle,
                "rootfs": message["rootfs"],
                "tty": message["tty"],
                "timing": message.get("timing", False),
            }
            messages.send(self._sync, told, self.streams.child_fds)
            common.make_meanwhile(self._cgroup_path)
            self._take_name()
        else:
            self._take_name()
            self._fork(message)
        self.streams.forked()
        open_log(self.loop, self.streams, message["log"])
        self.controls.listen()
        if not message["tty"] and not self.foreign:
            self.streams.listen()
        self.loop.add(self._sync, READ, self._receive_from_child)
        failpoint("monitor.listening")
        if prepared is not None:
            self._created(prepared.network)

    def _take_name(self) -> None:
        messages.write_file("/proc/self/comm", b"ketch-monitor")
        self._title.set(f"ketch-monitor {self.id}")

    def _fork(self, message: StartContainer) -> None:
        self._sync, child_end = messages.pair()
        if self.foreign:
            self._driver = os.fork()
            if self._driver == 0:
                self._in_child(message, child_end)
        else:
            passing = birth.saves_time_of(message)
            later = passing or message.get("userns")  # the child forks the first process
            self.pid = init.fork_child("host" if later else message.get("pidns", "new"))
            if self.pid == 0:
                self._in_child(message, child_end, passing=passing)
            self._passing = self.pid if later else 0
        failpoint("monitor.forked")
        os.close(child_end)

    def _in_child(self, message: StartContainer, sync_fd: int, *, passing: bool = False) -> NoReturn:
        _signal.set_wakeup_fd(-1)
        assert self.streams is not None
        self.streams.dup_to_stdio()
        if self.foreign:
            foreign.child_main(message, sync_fd)
        parent = Parent(sync_fd, early=True).pass_on(passing)
        init.child_main(self.bundle, message["rootfs"], parent, tty=message["tty"])

    def _receive_from_child(self, _events: int) -> None:
        """Handle a message of the child: network, ready, failed, or (end of file after ``go``) its program runs."""
        message, fds = messages.receive_from_child(self._sync)
        if message is None:
            self._end_sync()
            if self.state == "starting" and self._was_ready:
                self._started()
            else:
                self._child_failed(self._died("during the set-up"))
        elif message["ev"] == "forked":
            self._crossed(message["pid"])
        elif message["ev"] == "netns":
            self._created(fds)
        elif message["ev"] == "ready":
            self._ready(message, fds)
        elif message["ev"] == "notify":
            self.pass_listener_on(message, fds)
        elif message["ev"] == "hooks":
            self._run_hooks()
        else:
            self._end_sync()
            self._child_failed(message if message["ev"] == "failed" else self._died("during the set-up"))

    def pass_listener_on(self, message: ChildListener, fds: list[int]) -> None:
        """Send a filter's listener to its supervisor: of PID 1, a hook, or an exec."""
        from ketch.runtime.security import seccomp_listener

        seccomp_listener.hand_over_aside(message, fds, self._oci_state())

    def _oci_state(self) -> OciHookState:
        status = "running" if self.state == "running" else "creating"
        return {"ociVersion": OCI_VERSION, "id": self.id, "status": status, "pid": self.pid, "bundle": self.bundle}

    def _run_hooks(self) -> None:
        """Run the host's hooks, and give the child the state for its own ones; nothing else is served meanwhile."""
        from ketch.runtime import hooks, spec  # few have any

        try:
            fdpass.send(self._sync, hooks.run_of_host(spec.load(self.bundle), self._oci_state()))
        except KetchError as e:
            self._end_sync()  # by which the child ends
            self._child_failed(to_message(e))

    def _crossed(self, pid: int) -> None:
        """Take over the first process, and have exec'd ones born in its pid namespace."""
        self.pid, self._passing = pid, 0
        try:
            namespaces.enter_pid(f"/proc/{pid}/ns/pid")
        except KetchError as e:
            if not ending.has_ended(pid):  # else it says itself why, and a user may not look at it any more
                self._fail(to_message(e))
                return
        self._reap(0)
        if self._network:
            self._created(self._network)

    def _died(self, when: str) -> Failed:
        return report.died(when, self._cgroup_path)

    def _end_sync(self) -> None:
        self.loop.remove(self._sync)
        os.close(self._sync)
        self._sync = -1

    def _created(self, fds: list[int]) -> None:
        """Report the first process to ketchd, which wires the network while that may still be at work."""
        if self._passing:  # it has yet to be forked
            self._network = fds
            return
        self.state = "created"
        try:
            if not self.controls.broadcast({"ev": "created", "pid": self.pid, "monitor": os.getpid()}, fds):
                self._connections_lost()
            failpoint("monitor.created-sent")
        finally:
            for fd in fds:
                os.close(fd)

    def _ready(self, message: ChildReady, fds: list[int]) -> None:
        assert self.streams is not None
        self._was_ready = True
        if (passages := followed()) is not None:
            passages += message.get("passages", ())
        self.cgroups = message.get("cgroups")
        if self.foreign:
            self._adopt(message["pid"], fds.pop() if message["tty"] else -1)
        elif message["tty"]:
            self.streams.listen(fds.pop())
        if self.state == "setup":
            self._created(fds)
        if self.cgroups:  # early: systemd removes the cgroup as soon as the program has ended
            self._oom.begin(common.open(self.cgroups), message.get("oom_kills_around"))

    def _adopt(self, pid: int, master_fd: int) -> None:
        """Take charge of the first process that another runtime has made, and which may have ended by now."""
        assert self.streams is not None
        self.pid, self._status = pid, self.execs.claim(pid)
        if master_fd >= 0:
            self.streams.take_terminal(master_fd)

    def _child_failed(self, message: Failed) -> None:
        self.cgroups = message.get("cgroups") or self.cgroups
        if self.state == "created":
            self._failure = message  # ketchd is busy with the network: the answer to "start" says it
        else:
            self._fail(message)

    def _connections_lost(self) -> None:
        """Handle the loss of the last control connection."""
        if self.state in ("setup", "created"):
            # Nobody is left who could say start: the container was never acknowledged.
            self._fail(self._died("before the start"))

    def _started(self) -> None:
        assert self.streams is not None
        self.state = "running"
        if self.foreign:
            # Not earlier: what a runtime itself writes, of an error, is in the error, and whoever reads the program's
            # first line may expect that the container runs.
            self.streams.listen()
        failpoint("monitor.program-runs")
        # The message was needed for the set-up only; what is left of it would be kept for the container's life.
        self._message = None
        if self._start is not None:
            control, seq = self._start
            self._start = None
            answer: Answer = {"seq": seq, "ok": True, "started_at": self._started_at}
            if (passages := followed()) is not None:
                answer["passages"] = passages
                follow_no_more()
            self.controls.send(control, answer)
        if self._status is not None:
            self._init_ended()

    def _fail(self, message: Failed) -> None:
        """Undo everything, report the reason, end."""
        if self.state == "failed":
            return
        self.state = "failed"
        if self.foreign:
            self._end_foreign()
        elif self.pid and self._status is None:
            ending.end(self.pid)
        self._remove_cgroup()
        self.controls.stop_listening()
        if self._start is not None:
            control, seq = self._start
            self.controls.send(control, {"seq": seq, "ok": False, "error": message})
        else:
            self.controls.broadcast(message)
        self.loop.running = False

    def _end_foreign(self) -> None:
        """Have another runtime's container deleted; when that fails ketchd tries again."""
        if self._driver:
            ending.end(self._driver)
        with suppress(OSError, ValueError, KetchError):
            remains.delete(self.run_dir, self.id)

    def _remove_cgroup(self, *, kill: bool = True) -> None:
        self._oom.end()
        ending.remove_cgroup(self.cgroups, self._cgroup_path, with_processes=kill)

    # -- requests --------------------------------------------------------------------------------

    def _hello(self) -> MonitorState:
        if self.state == "ended":  # somebody is there to be told
            self.loop.deadline = monotonic()
        return {
            "id": self.id,
            "monitor": os.getpid(),
            "pid": self.pid,
            "started_at": self._started_at,
            "state": self.state,
            "execs": self.execs.running(),
            "ooms": self._oom.count,
        }

    def _serve(self, control: socket, message: MonitorRequest, fds: list[int]) -> Mapping[str, Any] | None:
        """Carry out one request; kept descriptors are removed from ``fds``. None: it is answered later."""
        if monotonic() > message.get("by", monotonic()):  # this process was stopped, and an error was the answer
            raise KetchError(f"control request `{message['op']}`: too late")
        if message["op"] == "start":
            self._go(control, message["seq"], message.get("args"))
            return None
        if message["op"] == "exec":
            self.execs.begin(control, message, fds)
            return None
        if message["op"] == "status":
            return self._hello()
        if message["op"] == "attach":
            self._attach(message, fds)
        elif message["op"] == "resize":
            self._streams_of(message.get("exec_id")).resize(message["rows"], message["cols"])
        elif message["op"] == "kill":
            return self._kill(control, message)
        elif message["op"] == "hold":
            self.waits.hold(control, fds.pop())
        elif message["op"] == "keep":
            self.controls.keep(list(fds))
            fds.clear()
        else:
            raise KetchError(f"control request `{message['op']}`: unknown")
        return {}

    def _attach(self, message: AttachRequest, fds: list[int]) -> None:
        initial = messages.take_early_input(message, fds)
        streams = self._streams_of(message.get("exec_id"))
        if message.get("frames"):
            output_format = FRAMES
        elif message.get("bell"):
            output_format = BELL
        else:
            output_format = MUX if message.get("mux") else RAW
        streams.attach(fds[-1], message, output_format, initial, message.get("from"))
        fds.pop()
        if self._ending is not None:
            streams.finish(self._ending)

    def _kill(self, control: socket, message: KillRequest) -> Mapping[str, Any] | None:
        exec_id = message.get("exec_id")
        pid = self.execs.pid(exec_id) if exec_id else self.pid
        if not exec_id and self._status is not None:  # a pid that was waited for may be somebody else's by now
            return {}
        if self.foreign and not exec_id:
            Kills(self.loop, self.run_dir, self.id).begin(
                pid,
                message["signal"],
                lambda error: self.controls.answer(control, message["seq"], error),
            )
            return None
        if pid:
            os.kill(pid, message["signal"])
        return {}

    def _streams_of(self, exec_id: str | None) -> Streams:
        if exec_id:
            return self.execs.streams(exec_id)
        assert self.streams is not None
        return self.streams

    def _go(self, control: socket, seq: int, args: list[str] | None) -> None:
        if self.state != "created":
            raise KetchError(f"start container: it is {self.state}")
        self._start = (control, seq)
        try:
            if self._sync < 0:
                raise BrokenPipeError
            # Now: what the program says first is not older than its start, from which clients have logs.
            self._started_at = time_ns()
            fdpass.send(self._sync, init.GO + (documents.dumps(args).encode() if args else b""))
            failpoint("monitor.go-given")
        except OSError:
            self._fail(self._failure or self._failure_of_child())
            return
        self.state = "starting"

    def _failure_of_child(self) -> Failed:
        """The failure of an ended child, which may have reported it just before its ``go``."""
        while self._sync >= 0:
            message, fds = messages.receive_from_child(self._sync)
            for fd in fds:
                os.close(fd)
            if message is None:
                break
            if message["ev"] == "failed":
                self.cgroups = message.get("cgroups") or self.cgroups
                return message
        return self._died("before the start")

    # -- the end ---------------------------------------------------------------------------------

    def _reap(self, _events: int) -> None:
        with suppress(OSError):
            if _signal.SIGUSR1 in os.read(self._wakeup, 512):
                self.controls.listen_again()
        while True:
            try:
                # Nobody but the passing process: the first one may be gone before we know of it.
                pid, status = os.waitpid(self._passing or -1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._passing:
                self.pid = 0
            elif pid == self.pid:
                self._status = status
                if self.state == "running":
                    self._init_ended()
            else:
                if pid == self._driver:
                    self._driver = 0
                self.execs.ended(pid, status, keep=self.foreign and self.state == "setup")

    @property
    def init_ended(self) -> bool:
        """Whether PID 1 has been waited for; its outputs may still be read."""
        return self._status is not None

    def _init_ended(self) -> None:
        """Handle the end of PID 1: kill the container's other processes, and finish reading its outputs."""
        assert self.streams is not None
        self._oom.look()
        failpoint("monitor.pid1-ended")
        ending.kill(self.cgroups)
        self.streams.stop_backpressure()
        if self.streams.ended:
            self._output_ended()
        else:
            self.loop.deadline = monotonic() + _DRAIN_S
            # What the program has written is there still if a client without a log made the monitor stop reading.
            self.loop.on_deadline = self.streams.drain_and_close

    def _output_ended(self) -> None:
        if self._status is not None and self.state == "running":
            self._record_exit(self._status)

    def _record_exit(self, status: int) -> None:
        """Make the exit record when all output is read."""
        assert self.streams is not None
        self.state = "ended"
        self.loop.deadline = None
        self.execs.close_outputs()
        oom = self._oom.kills > 0 or ending.out_of_memory(self.cgroups)
        record: ExitRecord = {"code": messages.exit_code(status), "at": time_ns(), "oom": oom}
        failpoint("monitor.outputs-read")
        self._keep_record(record)

    def _keep_record(self, record: ExitRecord) -> None:
        """Write the exit record; if that fails without a connection, wait until either is possible."""
        if not ending.keep_record(self.run_dir, record) and not self.controls:
            self.loop.deadline = monotonic() + _AGAIN_S
            self.loop.on_deadline = lambda: self._keep_record(record)
            return
        self._leave(record)

    def _leave(self, record: ExitRecord) -> None:
        """Report the exit, and end the clients."""
        assert self.streams is not None
        self.state = "done"
        failpoint("monitor.exit-recorded")
        if self.foreign:
            self._end_foreign()
        self._remove_cgroup(kill=False)  # that was done when PID 1 ended
        # Before anybody knows: a restart's monitor will use the same names.
        self.controls.stop_listening()
        failpoint("monitor.cgroup-removed")
        self.controls.broadcast({"ev": "exit", "code": record["code"], "at": record["at"], "oom": record["oom"]})
        failpoint("monitor.exit-sent")
        self.waits.answer(record)
        self._ending = {
            "ExitCode": record["code"],
            "OOMKilled": record["oom"],
            "StartedAt": self._started_at,
            "FinishedAt": record["at"],
        }
        self.streams.finish(self._ending)
        self._progress = -1
        self._linger()
        self.drained()

    def drained(self) -> None:
        """Handle a client that has received everything; after the last one the process ends."""
        assert self.streams is not None
        if self.state == "done" and not self.streams.busy and not self.execs.lingering:
            self.loop.running = False

    def _linger(self) -> None:
        """Wait for clients that still receive output; one that stalls is dropped."""
        assert self.streams is not None
        taken = self.streams.taken + self.execs.taken
        if taken == self._progress:
            self.loop.running = False
            return
        self._progress = taken
        has_unsent = self.streams.has_unsent or self.execs.has_unsent
        self.loop.deadline = monotonic() + (_LINGER_S if has_unsent else _PART_S)
        self.loop.on_deadline = self._linger
