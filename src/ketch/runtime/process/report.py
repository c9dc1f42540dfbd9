"""Errors of a monitor that nobody foresaw: tracebacks in a file, and first processes that died without a message."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from ketch.errors import KetchError
from ketch.runtime.cgroups import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Failed


def exception(run_dir: str) -> None:
    """Leave the current exception's traceback in ``monitor.err``: nobody reads a monitor's stderr."""
    with suppress(OSError):
        fd = os.open(os.path.join(run_dir, "monitor.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(fd, 2)
        os.close(fd)
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os.dup2(0, 2)


def died(when: str, cgroup: str | None) -> Failed:
    """The ``failed`` event for a first process that ended without a word; ``cgroup`` may know why."""
    text = f"start container: its first process died {when}"
    if cgroup:
        with suppress(OSError, KetchError):
            if common.at(cgroup).oom_kills():
                text = "start container: out of memory during the set-up (the memory limit is too small)"
    return {"ev": "failed", "kind": "setup", "step": "init", "errno": 0, "message": text}
