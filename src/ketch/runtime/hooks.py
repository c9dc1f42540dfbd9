"""OCI hooks: programs of the bundle's author, run at points of a container's life with its state on stdin."""

from __future__ import annotations

import os
import select
from _signal import SIGKILL  # type: ignore[import-not-found]
from errno import EINVAL

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import signals
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ketch.runtime.oci_types import OciHook

    Execve = Callable[[str, list[str], dict[str, str]], NoReturn]

_HIGHEST_FD = 1 << 30


def run(hooks: list[OciHook], state: bytes, kind: str, execve: Execve = os.execve) -> None:
    """Run hooks of one ``kind`` in order; the first that fails ends it with RuntimeFailure (step ``hooks``).

    ``execve``: how the forked process becomes the hook; it raises OSError or RuntimeFailure.
    """
    for hook in hooks:
        _run_one(hook, state, kind, execve)


def _run_one(hook: OciHook, state: bytes, kind: str, execve: Execve) -> None:
    path = hook.get("path") or ""
    env = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = _spawn(read_fd, lambda: execve(path, hook.get("args") or [path], env))
        finally:
            os.close(read_fd)
        with suppress(BrokenPipeError):  # a hook need not care for its input
            os.write(write_fd, state)  # smaller than a pipe's buffer
    except OSError as e:
        raise failure("hooks", f"run {kind} hook `{path}`", e) from e
    finally:
        os.close(write_fd)
    code = _wait(pid, hook.get("timeout"))
    if code != 0:
        what = "timed out" if code is None else f"exit status {code}"
        raise RuntimeFailure(f"run {kind} hook `{path}`: {what}", step="hooks")


def _spawn(stdin_fd: int, execve: Callable[[], NoReturn]) -> int:
    """Fork and exec with all signals as by default and no descriptors but stdio; OSError says why it did not run."""
    report_fd, error_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _exec_hook(stdin_fd, error_fd, execve)
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


def _exec_hook(stdin_fd: int, error_fd: int, execve: Callable[[], NoReturn]) -> NoReturn:
    number = EINVAL
    try:
        os.dup2(stdin_fd, 0)
        signals.reset()
        os.closerange(3, error_fd)
        os.closerange(error_fd + 1, _HIGHEST_FD)
        execve()
    except (OSError, RuntimeFailure) as e:
        number = e.errno or EINVAL
    finally:
        os.write(error_fd, b"%d" % number)
        os._exit(127)


def _wait(pid: int, timeout_s: float | None) -> int | None:
    """The exit code; None when the hook had to be killed."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([pidfd], [], [], timeout_s)
    finally:
        os.close(pidfd)
    if not ready:
        os.kill(pid, SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if ready else None
