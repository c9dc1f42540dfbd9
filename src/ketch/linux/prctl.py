"""prctl(2): the few process attributes that the runtime sets."""

from __future__ import annotations

from ketch.linux.syscall import c_int, c_long, failed, function

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = function("prctl", c_int, c_long, c_long, c_long, c_long)


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2) with numeric arguments; the call's own result."""
    result = _prctl(option, arg2, arg3, 0, 0)
    if result < 0:
        raise failed("prctl")
    return result


def set_no_new_privs() -> None:
    """Let execve give no more privileges (set-user-ID, file capabilities) to this process and its children."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_child_subreaper() -> None:
    """Make this process the parent of its orphaned descendants."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send ``signal`` (0 = none) when the parent thread ends; cleared by set-user-ID exec."""
    prctl(PR_SET_PDEATHSIG, signal)
