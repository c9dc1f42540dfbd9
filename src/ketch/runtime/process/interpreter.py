"""The interpreter's file, which no container may change through a process that executes it.

A container's program can be ``/proc/self/exe``, by its name, as the interpreter of a script or as its loader: what
the first process, or one that was added, is then executing once more, as a process of the container, is the host's
python.  Whoever opens ``/proc/PID/exe`` of that one and waits for its end can write to the file, as root can
(CVE-2019-5736).  The launcher executes a sealed copy (`process.zygote`); here, where the interpreter has been started
by others, the process goes on with the same file in a mount of its own that is read-only, and its forks do so.

An interpreter that is a small program and a library is mapped anew from there, which takes half a millisecond.  One
that is a single file has its objects in that file's mappings, and writes to them all the time: it is executed anew.
Where the file cannot be mounted a second time (it is in an unbindable mount), a sealed copy takes its place.
"""

from __future__ import annotations

import os
import sys

from ketch.linux import memory
from ketch.linux import mount as m

_IN_MEMORY = "/memfd:"


def protect() -> None:
    """Leave the interpreter's file, once and for all; to be called before anything is made.

    It may return in another process image, from the command's begin on.
    """
    path = memory.executable()
    if path.startswith(_IN_MEMORY) or os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        return
    try:
        fd = _open_read_only()
    except OSError:
        from ketch.runtime.process import zygote  # few need it

        fd = zygote.sealed_copy("/proc/self/exe")
    if memory.has_mapped("/libpython"):
        try:
            _map_anew(path, fd)
        except OSError:
            pass  # a kernel without CONFIG_CHECKPOINT_RESTORE: the other way is always there
        else:
            os.close(fd)
            return
    sys.stdout.flush()
    os.execve(f"/proc/self/fd/{fd}", sys.orig_argv, os.environ)


def _open_read_only() -> int:
    """This process's executable, whatever is at its path by now, in a detached mount."""
    executable_fd = os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        tree_fd = m.open_tree("", dir_fd=executable_fd)
    finally:
        os.close(executable_fd)
    try:
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV)
        return os.open(f"/proc/self/fd/{tree_fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree_fd)


def _map_anew(path: str, fd: int) -> None:
    for mapping in list(memory.mappings_of(path)):
        if mapping.protection & memory.PROT_EXEC:
            memory.map_file(mapping, fd)
        else:  # what the loader has relocated
            memory.map_copy(mapping)
    memory.set_executable(fd)
