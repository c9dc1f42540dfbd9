"""Processes that are born in a cgroup: clone3(2) with CLONE_INTO_CGROUP.

On cgroup v2 a process that is moved from one cgroup to another waits for the kernel's readers of all processes' cgroups
(an RCU grace period: 6 to 20 ms); one that is born where it belongs waits for nobody.
"""

from __future__ import annotations

import ctypes
import os
from _signal import SIGCHLD  # type: ignore[import-not-found]
from ctypes import c_long, c_uint64, c_void_p

from ketch.linux.syscall import number

_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x200000000
_ARGUMENTS = c_uint64 * 11  # struct clone_args; the last is the cgroup
_EXIT_SIGNAL, _CGROUP = 4, 10

_python = ctypes.pythonapi
_NUMBER = number("clone3")
# Held as in os.fork: the lock of the interpreter, which a bound function of another kind releases.
_syscall = ctypes.PyDLL(None, use_errno=True)["syscall"]
_syscall.argtypes = (c_long, c_void_p, c_long)
_syscall.restype = c_long


def fork(cgroup_fd: int, *, sibling: bool = False) -> int:
    """As os.fork, in a process without threads; the new process is in the cgroup of the open directory ``cgroup_fd``.

    ``sibling``: it is a child of this one's parent.  OSError: there is no such call here (ENOSYS), or the kernel takes
    no process in there (EBUSY, EOPNOTSUPP).
    """
    arguments = _ARGUMENTS()
    arguments[0] = _CLONE_INTO_CGROUP | (_CLONE_PARENT if sibling else 0)
    arguments[_EXIT_SIGNAL] = 0 if sibling else SIGCHLD  # a sibling has this process's own
    arguments[_CGROUP] = cgroup_fd
    _python.PyOS_BeforeFork()
    pid = _syscall(_NUMBER, ctypes.addressof(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, f"clone3: {os.strerror(error)}")
    return int(pid)
