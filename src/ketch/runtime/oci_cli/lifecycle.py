"""The life of a container that was created by the OCI command line: start, signal, pause, remove."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket

from ketch.contexts import suppress
from ketch.errors import Conflict, RuntimeFailure
from ketch.linux import fdpass
from ketch.notation import documents
from ketch.runtime import namespaces, spec
from ketch.runtime.failure import failure
from ketch.runtime.oci_cli import started
from ketch.runtime.oci_cli import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.common import Cgroup
    from ketch.runtime.oci_cli.diagnostics import Diagnostics
    from ketch.runtime.oci_types import OciConfig
    from ketch.runtime.sd_notify import ReadinessSocket

_ROUNDS = 100  # of a signal to all: who forks for ever is not waited for
_PATIENCE_S = 10  # for a process that has got SIGKILL


def start(state: states.RuntimeState, *, attending: bool = False) -> None:
    """Let a created container exec its program; raises the error of its start.

    A poststart hook that fails ends the container, as runc and crun have it.  Where a service manager waits for the
    program to be ready, so does this, unless the caller stays with the container (``attending``).
    """
    status = state.status()
    if status != "created":
        raise Conflict(f"cannot start container `{state.id}`: it is {status}, not created")
    readiness = _listen_for_readiness(state)
    _go(state)
    wanted = spec.member(state.configuration(), "hooks", "poststart")
    if wanted:
        from ketch.runtime import hooks  # few have any

        try:
            hooks.run(wanted, _hook_state(state, "running"), "poststart")
        except RuntimeFailure:
            _kill_and_wait(state)
            raise
    if readiness is not None:
        readiness.pass_on() if attending else _await_readiness(state, readiness)


def _listen_for_readiness(state: states.RuntimeState) -> ReadinessSocket | None:
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    from ketch.runtime import sd_notify

    return sd_notify.listen(state.directory)


def _await_readiness(state: states.RuntimeState, readiness: ReadinessSocket) -> None:
    process_fd = state.open_first()
    if process_fd < 0:
        return
    try:
        readiness.wait(state.pid, process_fd)
    except OSError as e:
        raise failure("start", f"tell the service manager that container `{state.id}` is ready", e) from e
    finally:
        os.close(process_fd)
        readiness.close()


def _go(state: states.RuntimeState) -> None:
    """Tell the created container's process to execute its program, and wait until it has."""
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        states.with_short_path(state.start_socket, connection.connect)
        fdpass.send(connection, b"go")
        os.unlink(state.start_socket)
        started.wait(connection, state, "creating")
    except OSError as e:
        raise failure("start", f"start container `{state.id}`", e) from e
    finally:
        connection.close()


def kill(state: states.RuntimeState, number: int, *, everyone: bool = False) -> None:
    """Send a signal to PID 1, or to every process of the container.

    SIGKILL to a container without a pid namespace of its own means all of them: nobody else ends them.
    """
    status = state.status()
    cgroup = state.cgroup()
    fatal = number == _signal.SIGKILL
    if cgroup is not None and (everyone or (fatal and not _has_pid_namespace(state.configuration()))):
        if not cgroup.pids() and not everyone:
            raise _not_running("kill", state)
        if fatal:
            cgroup.kill()
        else:
            _signal_all(cgroup, number)
    elif status in ("stopped", "creating") or not _signal_first(state, number):
        raise _not_running("kill", state)
    if fatal and status == "paused" and cgroup is not None:
        _thaw(cgroup)


def pause(state: states.RuntimeState) -> None:
    """Stop all processes of a container."""
    status = state.status()
    if status not in ("running", "created"):
        raise _not_running("pause", state) if status != "paused" else Conflict(f"container `{state.id}` already paused")
    _cgroup_of(state, "pause").freeze(True)


def resume(state: states.RuntimeState) -> None:
    """Let the processes of a paused container go on."""
    if state.status() != "paused":
        raise Conflict(f"resume container `{state.id}`: container not paused")
    _cgroup_of(state, "resume").freeze(False)


def delete(state: states.RuntimeState, diagnostics: Diagnostics, *, force: bool = False) -> None:
    """Remove a container; one that runs only with ``force``.

    Its processes end, whatever pid namespace they are in.  A poststop hook that fails is warned of, and does not keep
    the others from running.
    """
    status = state.status()
    cgroup = state.cgroup()
    if status not in ("stopped", "created") and not force:
        raise Conflict(
            f"cannot delete container `{state.id}` that is not stopped: it is {status}",
            hint="stop it first, or use --force",
        )
    if status != "stopped" and state.pid:
        _kill_and_wait(state, cgroup if status == "paused" else None)
    if cgroup is not None:
        cgroup.kill()
        cgroup.remove()
    try:
        document = state.configuration()
    except RuntimeFailure:
        document = {}  # an older version's container whose bundle is gone
    data = _hook_state(state, "stopped")
    state.forget()
    for hook in spec.member(document, "hooks", "poststop") or []:
        from ketch.runtime import hooks

        try:
            hooks.run([hook], data, "poststop")
        except RuntimeFailure as e:
            diagnostics.warn(e.message)


def _cgroup_of(state: states.RuntimeState, what: str) -> Cgroup:
    cgroup = state.cgroup()
    if cgroup is None:
        raise Conflict(f"{what} container `{state.id}`: it has no cgroup of its own")
    return cgroup


def _not_running(what: str, state: states.RuntimeState) -> Conflict:
    return Conflict(f"{what} container `{state.id}`: container not running")


def _has_pid_namespace(document: OciConfig) -> bool:
    return namespaces.Plan(spec.member(document, "linux", "namespaces") or []).pid_mode() != "host"


def _signal_first(state: states.RuntimeState, number: int) -> bool:
    """Send a signal to the first process; False when it has ended."""
    fd = state.open_first()
    if fd < 0:
        return False
    try:
        _signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _kill_and_wait(state: states.RuntimeState, frozen: Cgroup | None = None) -> None:
    """Kill the first process, whose cgroup may be ``frozen``: there, v1 delivers no signal."""
    fd = state.open_first()
    if fd < 0:
        return
    try:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            _signal.pidfd_send_signal(fd, _signal.SIGKILL)
        if frozen is not None:
            _thaw(frozen)
        import select

        select.select([fd], [], [], _PATIENCE_S)
    finally:
        os.close(fd)


def _thaw(cgroup: Cgroup) -> None:
    """Let processes that have got SIGKILL end, as v1 delivers no signal to what is frozen.

    The cgroup may be gone with them: systemd removes a scope's.
    """
    with suppress(FileNotFoundError):
        cgroup.freeze(False)


def _signal_all(cgroup: Cgroup, number: int) -> None:
    """Send a signal to every process, also to those that others fork meanwhile."""
    signalled: set[int] = set()
    for _ in range(_ROUNDS):
        found = set(cgroup.pids()) - signalled
        if not found:
            return
        for pid in found:
            _send(pid, number)
        signalled |= found


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _hook_state(state: states.RuntimeState, status: str) -> bytes:
    return documents.dumps(state.of_hooks(status, 0 if status == "stopped" else state.pid)).encode()
