"""Containers made, and processes started in them, without a monitor: ``create`` and ``exec`` of the OCI command line.

``create`` forks PID 1 and ends; whoever called it (containerd's shim, conmon) is the subreaper that inherits the
container.  PID 1 has done everything but execve and waits on a listening socket in the state directory, through
which ``start`` says go and hears of a failure.
"""

from __future__ import annotations

import os
import time
from _signal import SIGKILL  # type: ignore[import-not-found]
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, SOCK_STREAM, socket, socketpair

from ketch.contexts import ExitStack
from ketch.errors import Conflict, FailedPrecondition
from ketch.linux import fdpass, prctl
from ketch.linux.netlink import links
from ketch.linux.netlink import messages as netlink
from ketch.notation import times
from ketch.runtime import documents, hooks, namespaces, spec
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure, from_message
from ketch.runtime.oci_cli import filters, started
from ketch.runtime.oci_cli import state as states
from ketch.runtime.process import messages
from ketch.runtime.process.children import exec as exec_process
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.validation import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciConfig, OciProcess
    from ketch.runtime.protocol import ChildMessage, ChildReady

_ANSWER = 4096


def create(
    root: str, container_id: str, bundle: str, *, console_socket: str = "", pid_file: str = "", preserve_fds: int = 0
) -> tuple[states.RuntimeState, int]:
    """Create a container; returns its state and the terminal's master (-1: none, or sent to ``console_socket``).

    Whatever fails, nothing stays: no process, cgroup or directory.
    """
    bundle = os.path.abspath(bundle)
    document = spec.load(bundle)
    check.check_config(document)
    terminal = bool(spec.member(document, "process", "terminal"))
    if console_socket and not terminal:
        raise FailedPrecondition("create container: console socket given, but process.terminal is false")
    linux = document.setdefault("linux", {})
    plan = namespaces.Plan(linux.get("namespaces") or [])
    state = states.reserve(root, container_id, bundle)
    with ExitStack() as undo:
        undo.callback(state.forget)
        filters.prepare(root, linux.get("seccomp"))
        listener = _listen(state)
        pid, sync = _fork_init(bundle, plan, terminal, listener, preserve_fds)
        if linux.get("cgroupsPath"):
            undo.callback(common.at(linux["cgroupsPath"]).remove)
        if plan.has_user:
            pid = _await_first(sync, pid)
        undo.callback(_kill_child, pid)
        message, fds = _receive(sync, document, state, pid)
        master_fd = fds.pop() if message["tty"] else -1
        if message["netns"]:
            _loopback_up(fds[1])
        for fd in fds:
            os.close(fd)
        if console_socket:
            _send_console(console_socket, master_fd)
            master_fd = -1
        _fill(state, document, pid, message)
        state.save()
        if pid_file:
            _write_pid(pid_file, pid)
        undo.pop_all()
    return state, master_fd


def enter(
    state: states.RuntimeState,
    process: OciProcess,
    *,
    console_socket: str = "",
    pid_file: str = "",
    preserve_fds: int = 0,
) -> tuple[int, int]:
    """Start another process in a container; (its pid, a child of the caller; the terminal's master or -1)."""
    status = state.status()
    if status != "running":
        raise Conflict(f"exec in container `{state.id}`: it is {status}, not running")
    terminal = bool(process.get("terminal"))
    profile = process["seccomp"] if "seccomp" in process else spec.member(spec.load(state.bundle), "linux", "seccomp")
    filters.prepare(state.root, profile)
    near, far = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    namespaces.enter_pid(f"/proc/{state.pid}/ns/pid")
    pid = os.fork()
    if pid == 0:
        exec_process.child_main(
            state.pid,
            process,
            Parent(far.fileno(), preserve_fds=preserve_fds),
            tty=terminal,
            cgroups=state.document.get("cgroups"),
            bundle=state.bundle,
        )
    far.close()
    with ExitStack() as undo:
        undo.callback(_kill_child, pid)
        message, fds = _answer(near)
        master_fd = fds.pop() if _ready(message)["tty"] else -1
        if console_socket:
            _send_console(console_socket, master_fd)
            master_fd = -1
        fdpass.send(near, b"go")
        started.wait(near, pid, state, "running")
        if pid_file:
            _write_pid(pid_file, pid)
        undo.pop_all()
    near.close()
    return pid, master_fd


def _listen(state: states.RuntimeState) -> socket:
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    states.with_short_path(state.start_socket, listener.bind)
    listener.listen(1)
    return listener


def _fork_init(
    bundle: str, plan: namespaces.Plan, terminal: bool, listener: socket, preserve_fds: int
) -> tuple[int, socket]:
    near, far = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    if plan.has_user:
        prctl.set_child_subreaper()  # the first process is a child's child (see `children.crossing`)
    pid = init.fork_child("host" if plan.has_user else plan.pid_mode())
    if pid == 0:
        parent = Parent(far.fileno(), start_fd=listener.fileno(), preserve_fds=preserve_fds)
        init.child_main(bundle, [], parent, tty=terminal)
    namespaces.enter_pid("/proc/self/ns/pid")  # hooks are children too, but not the container's
    far.close()
    listener.close()
    return pid, near


def _await_first(sync: socket, passing: int) -> int:
    """The pid of the first process, which falls to us when the one that forked it has ended."""
    try:
        message, _ = _answer(sync)
        assert message["ev"] == "forked", message
    except BaseException:
        os.kill(passing, SIGKILL)
        raise
    finally:
        os.waitpid(passing, 0)
    return message["pid"]


def _receive(sync: socket, document: OciConfig, state: states.RuntimeState, pid: int) -> tuple[ChildReady, list[int]]:
    """Wait for the child's ``ready``, and run the runtime namespace's hooks on its request."""
    message, fds = _answer(sync)
    if message["ev"] == "hooks":
        state.document["pid"] = pid
        data = documents.dumps({**state.oci(), "status": "creating", "pid": pid}).encode()
        for kind in ("prestart", "createRuntime"):
            hooks.run(spec.member(document, "hooks", kind) or [], data, kind)
        fdpass.send(sync, data)
        message, fds = _answer(sync)
    return _ready(message), fds


def _answer(sync: socket) -> tuple[ChildMessage, list[int]]:
    """The child's next message; raises the error of a failed child."""
    message, fds = messages.receive_from_child(sync.fileno())
    if message is None or message["ev"] == "failed":
        raise from_message(message)
    return message, fds


def _ready(message: ChildMessage) -> ChildReady:
    assert message["ev"] == "ready", message
    return message


def _fill(state: states.RuntimeState, document: OciConfig, pid: int, message: ChildReady) -> None:
    state.document.update(
        {
            "pid": pid,
            "start_time": states.start_time(pid),
            "created": times.fixed(time.time_ns()),
            "cgroups": message.get("cgroups"),
            "annotations": document.get("annotations") or {},
            "rootfs": os.path.normpath(os.path.join(state.bundle, document["root"]["path"])),
        }
    )


def _send_console(path: str, master_fd: int) -> None:
    """Send the terminal to the socket ``path`` and close our copy (the convention of runc)."""
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        states.with_short_path(path, connection.connect)
        fdpass.send(connection, b"/dev/ptmx", [master_fd])
    except OSError as e:
        raise failure("tty", f"send terminal to `{path}`", e) from e
    finally:
        connection.close()
        os.close(master_fd)


def _loopback_up(rtnl_fd: int) -> None:
    """Bring up ``lo`` through a netlink socket in the container's network namespace."""
    request = links.set_up(index=links.LOOPBACK_INDEX)
    try:
        os.write(rtnl_fd, netlink.encode(request, 1, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK))
        for _, flags, _, body in netlink.split(os.read(rtnl_fd, _ANSWER)):  # it is there when the write is done
            netlink.raise_for(body, flags, request)
    except OSError as e:
        raise failure("network", "bring up the loopback interface", e) from e


def _write_pid(path: str, pid: int) -> None:
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)


def _kill_child(pid: int) -> None:
    os.kill(pid, SIGKILL)
    os.waitpid(pid, 0)
