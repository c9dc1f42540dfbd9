"""Namespaces: unshare(2), setns(2) and the names of the UTS namespace."""

from __future__ import annotations

import os

from ketch.contexts import ExitStack, contextmanager
from ketch.linux import caps
from ketch.linux.syscall import c_char_p, c_int, failed, function
from ketch.linux.syscall import c_long as _long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_unshare = function("unshare", c_int)
_setns = function("setns", c_int, c_int)
_sethostname = function("sethostname", c_char_p, _long)
_setdomainname = function("setdomainname", c_char_p, _long)


_MACHINES_USERS = 0xEFFFFFFD  # the number of the first user namespace (linux/proc_ns.h)


def may(*names: str) -> bool:
    """Whether the calling thread has these capabilities (``CAP_SYS_ADMIN`` …) in its user namespace."""
    wanted = caps.mask(list(names))
    return caps.get()[0] & wanted == wanted


def _limited() -> bool:
    if os.geteuid() != 0 or not may("CAP_SYS_ADMIN"):
        return True
    try:
        return os.stat("/proc/self/ns/user").st_ino != _MACHINES_USERS
    except FileNotFoundError:  # a kernel without user namespaces
        return False


# Whether this process has not the rights of the machine's root, but those of a user namespace's at most
# (user_namespaces(7)); who is not root yet when this is imported will have no others, nor root without those rights.
LIMITED = _limited()


def outside_uid() -> int:
    """This process's user in the parent of its user namespace, or in its own if that is the machine's."""
    here = os.geteuid()
    try:
        with open("/proc/self/uid_map", "rb", buffering=0) as file:
            lines = file.read(4096).splitlines()
    except FileNotFoundError:  # a kernel without user namespaces
        return here
    for line in lines:
        inside, outside, count = map(int, line.split())
        if inside <= here < inside + count:
            return outside + here - inside
    return here


def unshare(flags: int) -> None:
    """unshare(2): with CLONE_NEWPID the *next* child is the new namespace's PID 1."""
    if _unshare(flags) != 0:
        raise failed("unshare")


def unshare_user() -> None:
    """Enter a new user namespace, for a process that does nothing else: its root may be another one afterwards.

    The kernel refuses it in a chroot, which such a namespace's root could leave; setns(2) leaves it as well.
    """
    try:
        unshare(CLONE_NEWUSER)
    except PermissionError:
        here_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(here_fd, CLONE_NEWNS)
        finally:
            os.close(here_fd)
        unshare(CLONE_NEWUSER)


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): ``fd`` is a namespace file, or (Linux 5.8) a pidfd whose namespaces ``flags`` are joined at once."""
    if _setns(fd, flags) != 0:
        raise failed("setns")


def may_set_groups() -> bool:
    """Whether setgroups(2) is possible in the calling process's user namespace (user_namespaces(7))."""
    try:
        with open("/proc/self/setgroups", "rb", buffering=0) as file:
            return file.read(16) != b"deny\n"
    except FileNotFoundError:  # a /proc without it, or none
        return True


def join_mount_namespace(fd: int) -> None:
    """Enter a container's mount namespace and be at the container's root.

    setns(2) leads to the top of the namespace.  The container's root is not there when this process lives in a chroot:
    pivot_root(2) has put it where that of its caller was, at the same path as ours.  (The root of a process in it says
    nothing: there are servers that chroot themselves into an empty directory.)  The caller's root and working
    directory must be its own; after a failure they may be anywhere.
    """
    path = _path_of_root()
    setns(fd, CLONE_NEWNS)
    if path != "/":
        os.chroot(path)
        os.chdir("/")


def _path_of_root() -> str:
    """The path of this thread's root in its mount namespace, whose top becomes its root."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        namespace_fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(namespace_fd, CLONE_NEWNS)
        finally:
            os.close(namespace_fd)
        os.fchdir(root_fd)
        return os.getcwd()
    finally:
        os.close(root_fd)


@contextmanager
def other_mount_namespace(path: str | None) -> Iterator[None]:
    """A context in the mount namespace at ``path`` (None: in a new copy of the present one).

    It is the calling thread that goes there; its root and working directory must be its own (CLONE_FS), which they are
    in a process of one thread.  Both are at the container's root (see `join_mount_namespace`), or with None where they
    were, and put back afterwards.
    """
    with ExitStack() as stack:
        here_fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, here_fd)
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root_fd)
        there_fd = -1
        if path is not None:
            there_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, there_fd)
        try:
            if there_fd < 0:
                unshare(CLONE_NEWNS)
            else:
                join_mount_namespace(there_fd)
            yield
        finally:
            setns(here_fd, CLONE_NEWNS)
            os.fchdir(root_fd)
            os.chroot(".")


def sethostname(name: str) -> None:
    """Set the host name of the UTS namespace (at most 64 bytes)."""
    encoded = os.fsencode(name)
    if _sethostname(encoded, len(encoded)) != 0:
        raise failed("sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of the UTS namespace (at most 64 bytes)."""
    encoded = os.fsencode(name)
    if _setdomainname(encoded, len(encoded)) != 0:
        raise failed("setdomainname", name)
