"""Unforeseen errors of a monitor: tracebacks in a file, first processes that died without a message."""

from __future__ import annotations

import os
import sys

from ketch.contexts import suppress
from ketch.errors import KetchError
from ketch.runtime.cgroups import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Failed


def exception(run_dir: str) -> None:
    """Write the current exception's traceback to ``monitor.err`` (a monitor has no stderr)."""
    with suppress(OSError):
        fd = os.open(os.path.join(run_dir, "monitor.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(fd, 2)
        os.close(fd)
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os.dup2(0, 2)


def died(when: str, cgroup: str | None) -> Failed:
    """The ``failed`` event for a first process that died without a message; ``cgroup`` may have the reason."""
    text = f"start container: its first process died {when}"
    if cgroup:
        with suppress(OSError, KetchError):
            if common.at(cgroup).oom_kills():
                text = "start container: out of memory during the set-up (the memory limit is too small)"
    return {"ev": "failed", "kind": "setup", "step": "init", "errno": 0, "message": text}
