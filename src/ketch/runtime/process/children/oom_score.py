"""Which processes the kernel ends first when memory runs out (proc_pid_oom_score_adj(5))."""

from __future__ import annotations

import os
from errno import EACCES

from ketch.contexts import suppress
from ketch.runtime.failure import failure

_OWN = "/proc/self/oom_score_adj"
_MOST = 16  # of a number's text


def set_own(value: int | None) -> None:
    """Set this process's ``oomScoreAdj``, if the configuration has one (RuntimeFailure)."""
    if value is None:
        return
    with open(_OWN, "rb+", buffering=0) as file:
        if int(file.read()) == value:
            return
        try:
            file.write(str(value).encode())
        except OSError as e:
            hint = "lowering it needs CAP_SYS_RESOURCE" if e.errno == EACCES else None
            raise failure("oom_score_adj", f"set oom_score_adj to {value}", e, hint) from e


def share(pid: int) -> None:
    """Set that of the process ``pid``: whoever made this one, a monitor or a shim, is ended later than containers."""
    with suppress(OSError):  # the process is ending, or this one may not lower its own
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)
        try:
            value = os.read(fd, _MOST)
        finally:
            os.close(fd)
        fd = os.open(_OWN, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value)
        finally:
            os.close(fd)
