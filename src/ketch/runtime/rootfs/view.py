"""A view of a container's files from outside: its root and volumes, in a private mount namespace.

A view is a mount namespace without a process.  A thread that lives for this alone makes the namespace, puts the
container's root at its top and the container's own mounts below, drops everything of the host from it, and ends.  What
keeps the namespace alive is a descriptor, so that nothing is left behind when this process dies.

    running       the container's own mounts, copied from its namespace: the same file systems, the same flags
    not running   the root from its layers, its volumes and directories of the host opened anew

Nothing of a container is executed or loaded here: the thread that stands in the container's namespace only
opens mounts there.  Paths are looked up from ``root_fd`` with `paths.open_in`, so no symbolic link leads out.
/proc, /sys, /dev and what a container mounted by itself are not part of a view.
"""

from __future__ import annotations

import os
import threading
from errno import ENOENT, ENOTDIR, EROFS

from ketch.contexts import suppress
from ketch.linux import mount as m
from ketch.linux import ns
from ketch.linux.caps import owner_of_files
from ketch.runtime import user_namespaces
from ketch.runtime.rootfs import mounts, paths
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.user_namespaces import OpenUserNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.runtime.oci_types import OciIdMapping, OciMount

    Maps = tuple[list[OciIdMapping], list[OciIdMapping]]
    Trees = Callable[[], tuple[int, list[tuple[str, int]]]]


# A device that a container put in a file's place is not opened, and nothing there is ever executed.
_GUARD = m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC


class View:
    """``root_fd`` is an O_PATH descriptor of the root; `close` ends the view and unmounts what it consists of.

    ``missing`` names those mounts that have no place in the root, which is read-only.
    """

    __slots__ = ("_ns_fd", "missing", "root_fd")

    def __init__(self, root_fd: int, ns_fd: int, missing: list[str]) -> None:
        self.root_fd = root_fd
        self._ns_fd = ns_fd
        self.missing = missing

    def close(self) -> None:
        """Close the view; open descriptors of its files stay valid."""
        for fd in (self.root_fd, self._ns_fd):
            if fd >= 0:
                os.close(fd)
        self.root_fd = self._ns_fd = -1

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def of_process(
    pid: int, destinations: Sequence[str], mount_point: str, expected: str, owner: tuple[int, int] = (0, 0)
) -> View:
    """The root of the running container of ``pid`` with what is mounted at these places of it (missing: left out).

    ``expected`` is its id: ProcessLookupError when ``pid`` is meanwhile another process.
    ``mount_point`` is any directory of the host.  A place that the container has taken away from under a mount is made
    anew, by ``owner``, its root.  Other failures are OSError.
    """

    def trees() -> tuple[int, list[tuple[str, int]]]:
        return _trees_of_process(pid, destinations, expected)

    return _assemble(trees, mount_point, owner)


def root_of_process(pid: int, expected: str) -> int:
    """The running container's root alone, read-only, with nothing mounted in it: a detached mount, the caller's."""
    tree_fd: list[int] = []

    def work() -> None:
        ns.unshare(ns.CLONE_NEWNS)
        tree_fd.append(_trees_of_process(pid, (), expected)[0])

    _in_passing_thread(work)
    m.mount_setattr(tree_fd[0], set_=m.MOUNT_ATTR_RDONLY | _GUARD)
    return tree_fd[0]


def of_directory(path: str) -> int:
    """A directory of the host, read-only, for reading what a container wrote there: a detached mount, the caller's."""
    tree_fd = m.open_tree(path)
    try:
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_RDONLY | _GUARD)
    except BaseException:
        os.close(tree_fd)
        raise
    return tree_fd


def of_snapshot(root: list[OciMount], entries: list[OciMount], mount_point: str, maps: Maps | None = None) -> View:
    """The root that these mounts make (see `root.attach`), with the ``bind`` and image mounts of a bundle in it.

    ``maps``: those of users and of groups of the container's user namespace, for mounts with the option ``idmap``.
    Raises OSError and RuntimeFailure.  Places that are missing are made, unless the root is read-only.
    """
    user = OpenUserNamespace(user_namespaces.make(*maps), *maps) if maps is not None else None

    def trees() -> tuple[int, list[tuple[str, int]]]:
        root_fd = rootfs.open_root(root[0], user)
        parts: list[tuple[str, int]] = []
        try:
            for entry in entries:
                parts.extend((mount.destination, mount.tree_fd) for mount in mounts.prepare([entry], user))
        except BaseException:
            _close(root_fd, parts)
            raise
        return root_fd, parts

    try:
        return _assemble(trees, mount_point, user.root() if user is not None else (0, 0))
    finally:
        if user is not None:
            user.close()


def mount_of(fd: int) -> tuple[int, bool]:
    """(the id of the mount that a descriptor lies on, whether it is read-only)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as f:
        identity = next(line for line in f if line.startswith(b"mnt_id:"))
    return int(identity.split()[1]), bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def _assemble(trees: Trees, mount_point: str, owner: tuple[int, int] = (0, 0)) -> View:
    """The view of these trees; ``owner`` is whose the places are that have to be made for them."""
    found: list[View] = []

    def work() -> None:
        ns.unshare(ns.CLONE_NEWNS)
        m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)  # nothing that follows reaches the host
        ns_fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            root_fd, parts = trees()
            try:
                for fd in (root_fd, *(part[1] for part in parts)):
                    # A copy of a shared mount is its peer: what is mounted in it would appear in the other one, too.
                    m.mount_setattr(fd, set_=_GUARD, propagation=m.MS_PRIVATE, recursive=True)
                rootfs.attach_trees([root_fd], mount_point)
                rootfs.enter(mount_point)
                with owner_of_files(*owner):
                    missing = _attach(root_fd, parts)
                found.append(View(os.open("/", paths.O_PATH | os.O_DIRECTORY), ns_fd, missing))
            finally:
                _close(root_fd, parts)
        except BaseException:
            os.close(ns_fd)
            raise

    _in_passing_thread(work)
    return found[0]


def _check(process_fd: int, expected: str) -> None:
    """Raise ProcessLookupError for another process than the first of the container with this id.

    That is in the container's cgroup, or, where containers have none, its monitor's child.
    """
    if os.fsencode(expected) in _read(process_fd, "cgroup"):
        return
    parent = int(_read(process_fd, "stat").rpartition(b")")[2].split()[1])
    with suppress(FileNotFoundError):
        parent_fd = os.open(f"/proc/{parent}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _read(parent_fd, "cmdline").rstrip(b"\0") == os.fsencode(f"ketch-monitor {expected}"):
                return
        finally:
            os.close(parent_fd)
    raise ProcessLookupError(3, "the container's process is gone")


def _read(process_fd: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _trees_of_process(pid: int, destinations: Sequence[str], expected: str) -> tuple[int, list[tuple[str, int]]]:
    """Copies of the container's mounts, taken in its own namespace (the kernel copies nothing else)."""
    parts: list[tuple[str, int]] = []
    process_fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(process_fd, expected)
        with ns.other_mount_namespace(f"/proc/self/fd/{process_fd}/ns/mnt"):
            root_fd = m.open_tree("/")
            try:
                for destination in destinations:
                    try:
                        parts.append((destination, m.open_tree(destination, recursive=True)))
                    except OSError as e:
                        if e.errno not in (ENOENT, ENOTDIR):
                            raise
            except BaseException:
                _close(root_fd, parts)
                raise
        return root_fd, parts
    finally:
        os.close(process_fd)


def _attach(root_fd: int, parts: list[tuple[str, int]]) -> list[str]:
    """Attach each tree at its target in the root, parents first; returns those without a target."""
    missing = []
    for destination, tree_fd in parts:
        directory = os.fstat(tree_fd).st_mode & 0o170000 == 0o040000
        try:
            target_fd = (paths.make_dirs if directory else paths.make_file)(root_fd, destination)
        except OSError as e:
            if e.errno not in (EROFS, ENOENT, ENOTDIR):
                raise
            missing.append(destination)
            continue
        try:
            m.move_mount(tree_fd, target_fd)
        except OSError as e:
            if e.errno != ENOTDIR:  # a file for a directory, or the other way round: the container replaced it
                raise
            missing.append(destination)
        finally:
            os.close(target_fd)
    return missing


def _close(root_fd: int, parts: list[tuple[str, int]]) -> None:
    for fd in (root_fd, *(part[1] for part in parts)):
        os.close(fd)


def _in_passing_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a new thread with its own root and namespace, which no other thread sees."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as e:  # handed to the caller below
            failures.append(e)

    thread = threading.Thread(target=run, name="view")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
