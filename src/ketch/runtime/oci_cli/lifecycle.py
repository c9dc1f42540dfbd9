"""The life of a container that was created by the OCI command line: start, signal, remove."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket

from ketch import pidfd
from ketch.errors import Conflict, NotFound, RuntimeFailure
from ketch.linux import fdpass
from ketch.runtime import documents, hooks, spec
from ketch.runtime.failure import failure
from ketch.runtime.oci_cli import started
from ketch.runtime.oci_cli import state as states


def start(state: states.RuntimeState) -> None:
    """Let a created container exec its program; raises the error of its start."""
    status = state.status()
    if status != "created":
        raise Conflict(f"start container `{state.id}`: it is {status}, not created")
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        states.with_short_path(state.start_socket, connection.connect)
        fdpass.send(connection, b"go")
        os.unlink(state.start_socket)
        started.wait(connection, state.pid, state, "creating")
    except OSError as e:
        raise failure("start", f"start container `{state.id}`", e) from e
    finally:
        connection.close()
    document = spec.load(state.bundle)
    hooks.run(spec.member(document, "hooks", "poststart") or [], _oci_bytes(state), "poststart")


def kill(state: states.RuntimeState, number: int, *, everyone: bool = False) -> None:
    """Send a signal to PID 1, or to every process of the container."""
    status = state.status()
    cgroup = state.cgroup()
    if everyone and cgroup is not None:
        for pid in cgroup.pids():
            _send(pid, number)
        return
    if status in ("stopped", "creating"):
        raise Conflict(f"kill container `{state.id}`: container not running")
    _send(state.pid, number)
    if number == _signal.SIGKILL and status == "paused" and cgroup is not None:
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


def find(root: str, container_id: str) -> states.RuntimeState | None:
    """The container's state, or None."""
    try:
        return states.load(root, container_id)
    except NotFound:
        return None


def _kill_and_wait(pid: int) -> None:
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:
        return
    try:
        _signal.pidfd_send_signal(fd, _signal.SIGKILL)
        select.select([fd], [], [], 10)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _oci_bytes(state: states.RuntimeState) -> bytes:
    return documents.dumps(state.oci()).encode()
