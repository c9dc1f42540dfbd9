"""OCI hooks: programs of the bundle's author, run at points of a container's life with its state on stdin."""

from __future__ import annotations

import os
import select
import time
from _signal import SIGKILL, strsignal  # type: ignore[import-not-found]
from errno import EINVAL

from ketch.contexts import ExitStack
from ketch.errors import RuntimeFailure
from ketch.linux import signals
from ketch.notation import documents
from ketch.runtime import spec
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ketch.runtime.oci_types import OciConfig, OciHook, OciHookState

    Execve = Callable[[str, list[str], dict[str, str]], NoReturn]

_HIGHEST_FD = 1 << 30
_READ = 4096
_PIPE = 65536  # what a pipe holds
_SHOWN = 2048  # bytes of a failed hook's output that its error shows, the last ones


class Becoming:
    """The way in which the forked process becomes a hook: ``execve``, which raises OSError or RuntimeFailure.

    ``environment`` is that of a hook without one of its own.  ``prepare`` is called before that with the hook's number,
    while all descriptors are open.
    """

    __slots__ = ("environment", "execve", "prepare")

    def __init__(
        self, execve: Execve, environment: dict[str, str], prepare: Callable[[int], None] | None = None
    ) -> None:
        self.execve = execve
        self.environment = environment
        self.prepare = prepare or _nothing


def run(hooks: list[OciHook], state: bytes, kind: str, becoming: Becoming | None = None) -> None:
    """Run hooks of one ``kind`` in order; the first that fails ends it with RuntimeFailure (step ``hooks``).

    Their output is read, and shown only when they fail.  Without ``becoming`` they run as this process does.
    """
    becoming = becoming or Becoming(os.execve, dict(os.environ))
    for number, hook in enumerate(hooks):
        what = f"error running {kind} hook #{number}: `{hook.get('path') or ''}`"
        try:
            code, output = _run_one(hook, number, state, becoming)
        except OSError as e:
            raise failure("hooks", what, e) from e
        if code != 0:
            raise RuntimeFailure(f"{what}: {_fate(code)}" + (f": {output}" if output else ""), step="hooks")


def run_of_host(document: OciConfig, state: OciHookState) -> bytes:
    """Run the hooks that come before the container's own, in the moment ``creating`` of its life.

    Returns the state for those of its own (RuntimeFailure).
    """
    # prestart is older than "creating", and what was written for it looks for "created", as crun says.
    run(_of(document, "prestart"), documents.dumps({**state, "status": "created"}).encode(), "prestart")
    data = documents.dumps({**state, "status": "creating"}).encode()
    run(_of(document, "createRuntime"), data, "createRuntime")
    return data


def _of(document: OciConfig, kind: str) -> list[OciHook]:
    return spec.member(document, "hooks", kind) or []


def _nothing(_number: int) -> None:
    """No preparation."""


def _fate(code: int | None) -> str:
    if code is None:
        return "timed out"
    return f"exit status {code}" if code > 0 else f"signal {-code} ({(strsignal(-code) or '').lower()})"


def _run_one(hook: OciHook, number: int, state: bytes, becoming: Becoming) -> tuple[int | None, str]:
    """Run a hook; its exit code (None: it ran past its time, and was killed) and the end of its output."""
    path = hook.get("path") or ""
    args, entries = hook.get("args") or [path], hook.get("env")
    env = dict(entry.partition("=")[::2] for entry in entries) if entries else becoming.environment
    with ExitStack() as ends:
        stdin_fd, state_fd = os.pipe2(os.O_CLOEXEC)
        ends.callback(os.close, stdin_fd)
        attendance = _Attendance(state, state_fd)
        ends.callback(attendance.close)
        output_fd, stdout_fd = os.pipe2(os.O_CLOEXEC)
        ends.callback(os.close, stdout_fd)
        ends.callback(os.close, output_fd)
        prepare, execve = (lambda: becoming.prepare(number)), (lambda: becoming.execve(path, args, env))
        pid = _spawn(stdin_fd, stdout_fd, prepare, execve)
        code, output = attendance.until_the_end(pid, output_fd, hook.get("timeout"))
    return code, output.decode(errors="replace").strip()


def _spawn(stdin_fd: int, stdout_fd: int, prepare: Callable[[], None], execve: Callable[[], NoReturn]) -> int:
    """Fork and exec with all signals as by default and no descriptors but stdio; OSError says why it did not run."""
    report_fd, error_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _exec_hook(stdin_fd, stdout_fd, error_fd, prepare, execve)
    finally:
        os.close(error_fd)
    try:
        number = os.read(report_fd, 16)
    finally:
        os.close(report_fd)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid


def _exec_hook(
    stdin_fd: int, stdout_fd: int, error_fd: int, prepare: Callable[[], None], execve: Callable[[], NoReturn]
) -> NoReturn:
    number = EINVAL
    try:
        os.dup2(stdin_fd, 0)
        os.dup2(stdout_fd, 1)
        os.dup2(stdout_fd, 2)
        signals.reset()
        prepare()
        os.closerange(3, error_fd)
        os.closerange(error_fd + 1, _HIGHEST_FD)
        execve()
    except (OSError, RuntimeFailure) as e:
        number = e.errno or EINVAL
    finally:
        os.write(error_fd, b"%d" % number)
        os._exit(127)


class _Attendance:
    """A hook that runs: it is given the state as it reads it, and its output is taken.

    Its own end counts: what it leaves running may hold its pipes for ever.
    """

    def __init__(self, state: bytes, state_fd: int) -> None:
        self._state = state
        self._state_fd = state_fd
        self._output = b""

    def close(self) -> None:
        """Close the pipe to the hook, which reads the end of the state then."""
        if self._state_fd >= 0:
            os.close(self._state_fd)
        self._state_fd = -1

    def until_the_end(self, pid: int, output_fd: int, timeout_s: float | None) -> tuple[int | None, bytes]:
        """The exit code, None when the hook had to be killed, and the end of its output."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for fd in (self._state_fd, output_fd):
            os.set_blocking(fd, False)
        pidfd = os.pidfd_open(pid)
        try:
            in_time = self._serve(pidfd, output_fd, deadline)
        except BaseException:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            os.close(pidfd)
        if not in_time:
            os.kill(pid, SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for _ in range(_PIPE // _READ):
            if not self._take_output(output_fd):
                break
        return (code if in_time else None), self._output

    def _serve(self, pidfd: int, output_fd: int, deadline: float | None) -> bool:
        """Serve the pipes until the hook ends; False when it did not in time."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(output_fd, select.POLLIN)
        poll.register(self._state_fd, select.POLLOUT)
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
            ready = [fd for fd, _ in poll.poll(left)]
            if not ready:
                return False
            if output_fd in ready and not self._take_output(output_fd):
                poll.unregister(output_fd)
            if self._state_fd in ready and not self._give_state():
                poll.unregister(self._state_fd)
                self.close()
            if pidfd in ready:
                return True

    def _take_output(self, output_fd: int) -> bool:
        """Read what is there; False at the end of the output."""
        try:
            data = os.read(output_fd, _READ)
        except BlockingIOError:
            return False
        self._output = (self._output + data)[-_SHOWN:]
        return bool(data)

    def _give_state(self) -> bool:
        """Write what there is room for; False when nothing is left, or the hook does not want it."""
        try:
            self._state = self._state[os.write(self._state_fd, self._state) :]
        except BrokenPipeError:
            return False
        return bool(self._state)
