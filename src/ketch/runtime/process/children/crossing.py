"""The way of a container's first process into a user namespace, or into its cgroup.

    monitor ──fork──► passing process          the host's rights: cgroup, sources of mounts, devices, secrets, limits
       │                  │ enters the user namespace, makes the others in it
       │◄── "forked" ─────┤──fork──► PID 1
       │                  └ ends     waits for that, is the monitor's child by then, and goes on
       │◄── "ready" ──────────────────┘

A pid namespace is entered by a process's children only, and belongs to the user namespace in which it is made.  So the
process that a container begins with cannot be the one that its parent forked.  The parent is a subreaper
(PR_SET_CHILD_SUBREAPER), to which PID 1 falls when the passing process has ended.

A first process that is born in its cgroup (`be_born`) comes the same way, but has the monitor for its parent at once.
"""

from __future__ import annotations

import os

from ketch.linux import ns
from ketch.runtime import namespaces
from ketch.runtime.failure import failure
from ketch.runtime.process import messages
from ketch.runtime.process.children import finalize_process
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.security import rlimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from select import poll

    from ketch.runtime.cgroups.common import Cgroup
    from ketch.runtime.namespaces import Plan
    from ketch.runtime.protocol import ChildForked
    from ketch.runtime.user_namespaces import OpenUserNamespace


def leave_host_mounts() -> None:
    """Enter a mount namespace that passes: what is mounted in it is seen nowhere else, and nothing goes back."""
    try:
        ns.unshare(ns.CLONE_NEWNS)
    except OSError as e:
        raise failure("namespaces", "make a passing mount namespace", e, "CAP_SYS_ADMIN is needed") from e
    rootfs.isolate("rslave")


def cross(plan: Plan, user: OpenUserNamespace, process: finalize_process.Process, sync_fd: int) -> None:
    """Enter the namespaces, and return in the first process that is forked there; this one ends.

    RuntimeFailure and OSError come from the passing process.
    """
    from select import poll  # few need it; and in there the interpreter's files may be out of reach

    finalize_process.own_stdio(*user.root())
    rlimits.raise_hard(process.limits)
    namespaces.enter_with_user(plan, user.fd, keep_groups=process.keep_groups)
    user.close()
    _fork(sync_fd, poll())


def be_born(cgroup: Cgroup | None, sync_fd: int) -> None:
    """Return in a first process that is in the cgroup, and in this process's new pid namespace; this one ends.

    Where it can be it is born there: to move in it would wait (see `linux.processes.cgroup_fork`).
    """
    from select import poll

    if cgroup is None:
        _fork(sync_fd, poll())
        return
    from ketch.runtime.cgroups import birth  # whoever has this done has it in memory

    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = birth.fork_sibling(cgroup.describe())
    except OSError:
        cgroup.join()
        _fork(sync_fd, poll())
    else:
        if pid:
            _tell(sync_fd, pid)
            os.write(writer, b"t")
            os._exit(0)
        os.close(writer)
        if not os.read(reader, 1):  # the parent has to hear of this process before it hears from it
            os._exit(1)
        os.close(reader)


def _tell(sync_fd: int, pid: int) -> None:
    message: ChildForked = {"ev": "forked", "pid": pid}
    messages.send(sync_fd, message)


def _fork(sync_fd: int, ended: poll) -> None:
    """Return in a child, when the parent has heard of it and this process has ended; ``ended`` is to wait with."""
    passing_fd = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid:
        _tell(sync_fd, pid)
        os._exit(0)
    ended.register(passing_fd)
    ended.poll()
    os.close(passing_fd)
