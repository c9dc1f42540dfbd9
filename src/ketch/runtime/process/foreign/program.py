"""The program of another OCI runtime (runc, crun, runsc, …), called as engines call runc.

    PROGRAM ARGUMENTS --root DIR --log FILE --log-format json COMMAND …

Its log is a file in memory, and so is what it reads (a process, limits): nothing is left on a disk.  A call blocks, and
is ended when it takes too long.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import os
from errno import ENOENT
from select import POLLIN, poll
from stat import S_ISCHR

from ketch.errors import MountMismatch, ProgramNotExecutable, ProgramNotFound, RuntimeFailure
from ketch.linux import prctl, signals
from ketch.notation import documents
from ketch.runtime.failure import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.runtime.protocol import ForeignRuntime

_LOG, _INPUT = 3, 4  # the descriptors as which the program finds them
_HIGH = 16  # above those
INPUT = f"/proc/self/fd/{_INPUT}"
_NULL = os.makedev(1, 3)
_CREATE_S = 120.0  # also of a runtime that boots a machine
_CALL_S = 20.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_TASK = "failed to create task for container: failed to create shim task: "  # dockerd's words, which clients know
_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "open executable: operation not permitted")
_MISMATCH = "not a directory"


class ForeignProgram:
    """A runtime, and where it keeps the state of its containers."""

    __slots__ = ("command", "root")

    def __init__(self, runtime: ForeignRuntime) -> None:
        self.command = list(runtime["command"])
        self.root = runtime["root"]

    def create(self, bundle: str, pid_file: str, console: str, container_id: str) -> None:
        """Create a container with this process's standard streams, or with a terminal that goes to ``console``.

        RuntimeFailure, in dockerd's words.  The call ends with this process, which must have one thread.
        """
        options = ["--bundle", bundle, "--pid-file", pid_file, *(["--console-socket", console] if console else [])]
        self._call(["create", *options, container_id], _TASK, own_streams=True, limit_s=_CREATE_S)

    def start(self, container_id: str) -> None:
        """Let a created container's program run (RuntimeFailure)."""
        self._call(["start", container_id], _TASK, limit_s=_CREATE_S)

    def exec(self, process: Mapping[str, Any], pid_file: str, console: str, container_id: str) -> None:
        """Run an OCI process in a container, with streams, errors and end as `create`."""
        options = ["--process", INPUT, "--detach", "--pid-file", pid_file]
        if console:
            options += ["--console-socket", console]
        self._call(["exec", *options, container_id], "", stdin=process, own_streams=True, limit_s=_CREATE_S)

    def kill(self, container_id: str, signal: int) -> None:
        """Send a signal to a container's first process (RuntimeFailure: it has ended, for instance)."""
        self._call(["kill", container_id, str(signal)], "")

    def delete(self, container_id: str) -> None:
        """End and remove a container; one that is not there is no error (RuntimeFailure)."""
        self._call(["delete", "--force", container_id], "")

    def pause(self, container_id: str, paused: bool) -> None:
        """Freeze or thaw every process of a container (RuntimeFailure)."""
        self._call(["pause" if paused else "resume", container_id], "")

    def update(self, container_id: str, resources: Mapping[str, Any]) -> None:
        """Change a container's limits, OCI ``linux.resources`` (RuntimeFailure)."""
        self._call(["update", "--resources", INPUT, container_id], "", stdin=resources)

    def _call(
        self,
        words: list[str],
        prefix: str,
        *,
        stdin: Mapping[str, Any] | None = None,
        own_streams: bool = False,
        limit_s: float = _CALL_S,
    ) -> None:
        """Call the program; what it reads as INPUT is ``stdin``, as JSON."""
        log_fd = os.memfd_create("log", os.MFD_CLOEXEC)
        input_fd = os.memfd_create("input", os.MFD_CLOEXEC)
        try:
            if stdin is not None:
                os.write(input_fd, documents.dumps(stdin).encode())
                os.lseek(input_fd, 0, os.SEEK_SET)
            log = ["--root", self.root, "--log", f"/proc/self/fd/{_LOG}", "--log-format", "json"]
            command = [*self.command, *log, *words]
            files = [(log_fd, _LOG), *([(input_fd, _INPUT)] if stdin is not None else [])]
            if text := self._outcome(command, files, log_fd, own_streams, limit_s):
                raise _failure(f"{prefix}OCI runtime {words[0]} failed: {text}", words[0])
        finally:
            os.close(log_fd)
            os.close(input_fd)

    def _outcome(
        self, command: list[str], files: list[tuple[int, int]], log_fd: int, own_streams: bool, limit_s: float
    ) -> str:
        """Run a command; returns why it failed, or an empty text."""
        if not os.path.isabs(command[0]):  # PATH has none; what lies in the current directory is not run
            return self._silent(f'exec: "{command[0]}": executable file not found in $PATH')
        try:
            status = _run(command, files, own_streams, limit_s)
        except TimeoutError:  # one of OSError's
            return f"`{command[0]}` did not end within {limit_s:.0f} s"
        except OSError as e:
            return self._silent(f"fork/exec {command[0]}: {reason(e)}")
        return "" if status == 0 else _last_error(log_fd) or self._silent(_ended(status))

    def _silent(self, how: str) -> str:
        return f"unable to retrieve OCI runtime error ({self.command[0]} has logged none): {how}"


def leave_null_device() -> None:
    """Replace this process's standard streams that are the host's ``/dev/null``, before a runtime is called.

    crun 1.8, for one, gives the standard streams of a container to the container's user, and so that device.
    """
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if S_ISCHR(status.st_mode) and status.st_rdev == _NULL:
            if fd:
                other = os.memfd_create("null", os.MFD_CLOEXEC)  # for a terminal's container: nothing writes there
            else:
                other, writer = os.pipe2(os.O_CLOEXEC)
                os.close(writer)
            os.dup2(other, fd)
            os.close(other)


def _run(command: list[str], files: list[tuple[int, int]], own_streams: bool, limit_s: float) -> int:
    """The wait status of a program (OSError: it cannot be executed; TimeoutError: it was killed)."""
    pid = _fork(command, files) if own_streams else _spawn(command, files)
    process_fd = os.pidfd_open(pid)  # it has not been waited for, so it is there
    try:
        waiting = poll()
        waiting.register(process_fd, POLLIN)
        in_time = bool(waiting.poll(limit_s * 1000))
    finally:
        os.close(process_fd)
    if not in_time:
        os.kill(pid, _signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not in_time:
        raise TimeoutError
    return status


def _spawn(command: list[str], files: list[tuple[int, int]]) -> int:
    """Start a program without streams, also from a process of several threads; returns its pid."""
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, 0, fd) for fd in (1, 2)]
    high: list[int] = []
    try:
        for fd, number in files:
            high.append(_above(fd))
            actions.append((os.POSIX_SPAWN_DUP2, high[-1], number))
        return os.posix_spawn(
            command[0],
            command,
            _ENVIRONMENT,
            file_actions=actions,
            setsigmask=(),
            setsigdef=[number for number in range(1, _signal.NSIG) if number not in (32, 33)],
        )
    finally:
        for fd in high:
            os.close(fd)


def _fork(command: list[str], files: list[tuple[int, int]]) -> int:
    """Start a program that has this process's streams and dies with it; returns its pid.

    What fails between fork and execve comes back as its number through a pipe that execve closes.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            prctl.set_parent_death_signal(_signal.SIGKILL)
            signals.reset()
            error_fd, high = _above(writer), [(_above(fd), number) for fd, number in files]
            for fd, number in high:
                os.dup2(fd, number)
            os.execve(command[0], command, _ENVIRONMENT)
        except OSError as e:
            os.write(error_fd, b"%d" % (e.errno or ENOENT))
        finally:
            os._exit(127)
    os.close(writer)
    failed = os.read(reader, 16)
    os.close(reader)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _above(fd: int) -> int:
    """A copy of a descriptor that is none of those which the program is given."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)


def _last_error(log_fd: int) -> str:
    """The last error in a log of JSON lines; its last message when no line says that it is one."""
    text = os.pread(log_fd, 1 << 20, 0).decode(errors="replace")
    found = last = ""
    for line in text.splitlines():
        try:
            entry = documents.loads(line)
        except (ValueError, RecursionError):
            continue
        message = entry.get("msg") if isinstance(entry, dict) else None
        if isinstance(message, str) and message:
            last = message
            if entry.get("level") in ("error", "fatal", "panic", "ERROR"):
                found = message
    return (found or last).strip()


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal: {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def _failure(message: str, step: str) -> RuntimeFailure:
    """The error of a call; which kind it is dockerd reads from the text as well."""
    lower, kind = message.lower(), RuntimeFailure
    if step == "create" and _MISMATCH in lower:
        return MountMismatch.of(message)
    if step in ("create", "start", "exec"):
        if any(words in lower for words in _NOT_FOUND):
            kind = ProgramNotFound
        elif any(words in lower for words in _NOT_EXECUTABLE):
            kind = ProgramNotExecutable
    return kind(message, step=step)
