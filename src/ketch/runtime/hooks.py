"""OCI hooks: programs of the bundle's author, run at points of a container's life with its state on stdin."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

from ketch.errors import RuntimeFailure
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(hooks: list[dict[str, Any]], state: bytes, kind: str) -> None:
    """Run hooks of one ``kind`` in order; the first that fails ends it with RuntimeFailure (step ``hooks``)."""
    for hook in hooks:
        _run_one(hook, state, kind)


def _run_one(hook: dict[str, Any], state: bytes, kind: str) -> None:
    path = hook.get("path") or ""
    env = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.posix_spawn(
                path,
                hook.get("args") or [path],
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, read_fd, 0)],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
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


def _wait(pid: int, timeout_s: float | None) -> int | None:
    """The exit code; None when the hook had to be killed."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([pidfd], [], [], timeout_s)
    finally:
        os.close(pidfd)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if ready else None
