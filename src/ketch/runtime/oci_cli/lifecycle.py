"""The operations of the OCI runtime command line, on containers that have no monitor.

``create`` forks PID 1 and ends; whoever called it (containerd's shim, conmon) is the subreaper that inherits the
container.  PID 1 has done everything but execve and waits on a listening socket in the state directory, through
which ``start`` says go and hears of a failure.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, SOCK_STREAM, socket, socketpair
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ketch import pidfd
from ketch.errors import Conflict, FailedPrecondition, NotFound, RuntimeFailure
from ketch.linux import fdpass
from ketch.linux.netlink import links
from ketch.linux.netlink import messages as netlink
from ketch.notation import times
from ketch.runtime import hooks, namespaces, spec
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure, from_message
from ketch.runtime.oci_cli import state as states
from ketch.runtime.process import messages
from ketch.runtime.process.children import exec as exec_process
from ketch.runtime.process.children import init
from ketch.runtime.process.children.parent import Parent

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
    terminal = bool(spec.member(document, "process", "terminal"))
    if console_socket and not terminal:
        raise FailedPrecondition("create container: console socket given, but process.terminal is false")
    linux = document.setdefault("linux", {})
    plan = namespaces.Plan(linux.get("namespaces") or [])
    state = states.reserve(root, container_id, bundle)
    with ExitStack() as undo:
        undo.callback(state.forget)
        listener = _listen(state)
        pid, sync = _fork_init(bundle, plan, terminal, listener, preserve_fds)
        if linux.get("cgroupsPath"):
            undo.callback(common.at(linux["cgroupsPath"]).remove)
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


def start(state: states.RuntimeState) -> None:
    """Let a created container exec its program; raises the error of its start."""
    status = state.status()
    if status != "created":
        raise Conflict(f"start container `{state.id}`: it is {status}, not created")
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        _with_short_path(state.start_socket, connection.connect)
        fdpass.send(connection, b"go")
        payload, _ = fdpass.recv(connection, 0)
    except OSError as e:
        raise failure("start", f"start container `{state.id}`", e) from e
    finally:
        connection.close()
    os.unlink(state.start_socket)
    if payload:
        raise from_message(json.loads(payload))
    document = spec.load(state.bundle)
    hooks.run(spec.member(document, "hooks", "poststart") or [], _oci_bytes(state), "poststart")


def kill(state: states.RuntimeState, number: int, *, everyone: bool = False) -> None:
    """Send a signal to PID 1, or to every process of the container."""
    status = state.status()
    cgroup = state.cgroup()
    if everyone and cgroup is not None:
        for pid in cgroup.pids():
            _signal(pid, number)
        return
    if status in ("stopped", "creating"):
        raise Conflict(f"kill container `{state.id}`: container not running")
    _signal(state.pid, number)
    if number == signal.SIGKILL and status == "paused" and cgroup is not None:
        cgroup.freeze(False)  # v1 delivers no signal to what is frozen


def delete(state: states.RuntimeState, *, force: bool = False) -> None:
    """Remove a container; a running one only with ``force``."""
    status = state.status()
    if status not in ("stopped", "created", "creating") and not force:
        raise Conflict(f"delete container `{state.id}`: it is {status}", hint="stop it first, or use --force")
    cgroup = state.cgroup()
    if status != "stopped" and state.pid:
        _kill_and_wait(state.pid)
    if cgroup is not None:
        cgroup.kill()
        cgroup.remove()
    try:
        document = spec.load(state.bundle)
    except RuntimeFailure:
        document = {}  # the bundle may be gone already
    data = _oci_bytes(state)
    state.forget()
    hooks.run(spec.member(document, "hooks", "poststop") or [], data, "poststop")


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
        payload, _ = fdpass.recv(near, 0)
        if payload:
            raise from_message(json.loads(payload))
        if pid_file:
            _write_pid(pid_file, pid)
        undo.pop_all()
    near.close()
    return pid, master_fd


def _listen(state: states.RuntimeState) -> socket:
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    _with_short_path(state.start_socket, listener.bind)
    listener.listen(1)
    return listener


def _with_short_path(path: str, call: Any) -> None:
    """Call ``work`` with a short path to a socket (at most 107 bytes), by a directory descriptor."""
    directory_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{directory_fd}/{os.path.basename(path)}")
    finally:
        os.close(directory_fd)


def _fork_init(
    bundle: str, plan: namespaces.Plan, terminal: bool, listener: socket, preserve_fds: int
) -> tuple[int, socket]:
    near, far = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    pid = init.fork_child(plan.pid_mode())
    if pid == 0:
        parent = Parent(far.fileno(), start_fd=listener.fileno(), preserve_fds=preserve_fds)
        init.child_main(bundle, [], parent, tty=terminal)
    namespaces.enter_pid("/proc/self/ns/pid")  # hooks are children too, but not the container's
    far.close()
    listener.close()
    return pid, near


def _receive(sync: socket, document: OciConfig, state: states.RuntimeState, pid: int) -> tuple[ChildReady, list[int]]:
    """Wait for the child's ``ready``, and run the runtime namespace's hooks on its request."""
    message, fds = _answer(sync)
    if message["ev"] == "hooks":
        state.document["pid"] = pid
        data = json.dumps({**state.oci(), "status": "creating", "pid": pid}).encode()
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
        _with_short_path(path, connection.connect)
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
    _signal(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _kill_and_wait(pid: int) -> None:
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [], 10)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _oci_bytes(state: states.RuntimeState) -> bytes:
    return json.dumps(state.oci()).encode()


def find(root: str, container_id: str) -> states.RuntimeState | None:
    """The container's state, or None."""
    try:
        return states.load(root, container_id)
    except NotFound:
        return None
