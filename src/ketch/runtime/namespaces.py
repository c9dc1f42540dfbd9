"""The namespaces of a container: which are new, which are joined by path, which stay the host's.

The pid namespace is the parent's business: a process cannot change its own.  The parent calls
`enter_pid` and forks; the child then calls `enter` for all the others.  A new cgroup namespace is made
last (`unshare_cgroup`), after the child has moved into its cgroup, so that this cgroup is its root.
"""

from __future__ import annotations

import os
from errno import EPERM

from ketch.errors import RuntimeFailure
from ketch.linux import ns
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciNamespace


FLAGS = {
    "mount": ns.CLONE_NEWNS,
    "pid": ns.CLONE_NEWPID,
    "network": ns.CLONE_NEWNET,
    "ipc": ns.CLONE_NEWIPC,
    "uts": ns.CLONE_NEWUTS,
    "cgroup": ns.CLONE_NEWCGROUP,
    "user": ns.CLONE_NEWUSER,
    "time": ns.CLONE_NEWTIME,
}
FILES = {
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "user": "user",
    "time": "time",
}


class Plan:
    """``new``: CLONE_* flags to unshare; ``join``: {type: path}; what is in neither stays the host's."""

    __slots__ = ("join", "new")

    def __init__(self, entries: list[OciNamespace]) -> None:
        self.new = 0
        self.join: dict[str, str] = {}
        for entry in entries:
            kind, path = entry.get("type", ""), entry.get("path")
            flag = FLAGS.get(kind)
            if flag is None:
                raise RuntimeFailure(f"read config.json: unknown namespace type `{kind}`", step="config")
            if self.new & flag or kind in self.join:
                raise RuntimeFailure(f"read config.json: namespace `{kind}` is listed twice", step="config")
            if path:
                self.join[kind] = path
            else:
                self.new |= flag

    def is_new(self, kind: str) -> bool:
        """True when the container gets its own namespace of that kind."""
        return bool(self.new & FLAGS[kind])

    def has(self, kind: str) -> bool:
        """True when a namespace of that kind is made or joined."""
        return self.is_new(kind) or kind in self.join

    def is_own(self, kind: str) -> bool:
        """True when the namespace is not the runtime's own: new, or joined by path."""
        path = self.join.get(kind)
        if path is None:
            return self.is_new(kind)
        try:
            joined, ours = os.stat(path), os.stat(f"/proc/self/ns/{FILES[kind]}")
        except OSError as e:
            raise failure("namespaces", f"open {kind} namespace `{path}`", e) from e
        return (joined.st_dev, joined.st_ino) != (ours.st_dev, ours.st_ino)

    @property
    def has_user(self) -> bool:
        """True when the container's user namespace is not the runtime's."""
        return self.is_own("user")

    def pid_mode(self) -> str:
        """``new``, ``host`` or the path to join: what `enter_pid` takes."""
        return "new" if self.is_new("pid") else self.join.get("pid", "host")


def enter_pid(mode: str) -> None:
    """Set the pid namespace of this process's *next children*: ``new``, ``host`` or a path.

    With ``new`` the first child forked afterwards is PID 1, and every later one joins it there, which is
    how the monitor puts exec'd processes into the container without another fork.
    """
    try:
        if mode == "new":
            ns.unshare(ns.CLONE_NEWPID)
        elif mode != "host":
            _join_path(mode)
    except OSError as e:
        raise failure("namespaces", f"enter pid namespace `{mode}`", e) from e


def enter(plan: Plan, entered: int = 0) -> None:
    """Join and unshare everything but the pid, cgroup and (new) time namespaces in the calling process.

    ``entered``: the flags of new ones in which it is already.
    """
    _join_others(plan)
    if entered & ~plan.new:
        raise RuntimeFailure("read config.json: a namespace that was made for it is not wanted", step="config")
    _make(plan.new & ~(ns.CLONE_NEWPID | ns.CLONE_NEWCGROUP | ns.CLONE_NEWTIME | entered))


def enter_with_user(plan: Plan, user_fd: int, *, keep_groups: bool) -> None:
    """Join and unshare everything, so that what is new belongs to the user namespace, of which this is root afterwards.

    The pid namespace is that of the next child; a new time namespace has been made before (`clocks`).  The
    calling process is in its cgroup already.
    """
    if "pid" in plan.join:  # first, while its path is the host's
        enter_pid(plan.join["pid"])
    _join_others(plan)
    enter_user(user_fd, keep_groups=keep_groups)
    _make(plan.new & ~(ns.CLONE_NEWUSER | ns.CLONE_NEWTIME))


def enter_user(fd: int, *, keep_groups: bool) -> None:
    """Enter a user namespace, and become its root, unless told otherwise without the host's supplementary groups."""
    try:
        if not keep_groups:
            os.setgroups([])
    except OSError as e:
        if e.errno != EPERM or ns.may_set_groups():
            raise failure("namespaces", "leave the groups of the host", e) from e
    try:
        ns.setns(fd, ns.CLONE_NEWUSER)
    except OSError as e:
        raise failure("namespaces", "enter user namespace", e) from e
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as e:
        hint = "linux.uidMappings and linux.gidMappings must have containerID 0"
        raise failure("namespaces", "become root of the user namespace", e, hint) from e


def _join_others(plan: Plan) -> None:
    """Join what has a path, but the pid and user namespaces."""
    opened: list[tuple[str, int]] = []
    try:
        # All are opened before the first is joined: afterwards the paths may lead elsewhere.
        for kind, path in plan.join.items():
            if kind not in ("pid", "user"):
                opened.append((kind, _open(kind, path)))
        opened.sort(key=lambda item: item[0] == "mount")
        for kind, fd in opened:
            try:
                join(fd, FLAGS[kind])
            except OSError as e:
                raise failure("namespaces", f"join {kind} namespace `{plan.join[kind]}`", e) from e
    finally:
        for _, fd in opened:
            os.close(fd)


def _make(flags: int) -> None:
    if flags:
        try:
            ns.unshare(flags)
        except OSError as e:
            kinds = ", ".join(kind for kind, flag in FLAGS.items() if flags & flag)
            raise failure("namespaces", f"make new {kinds} namespaces", e, _hint(e)) from e


def join(fd: int, flag: int) -> None:
    """Enter a namespace by its file's descriptor; a container's mount namespace at the container's root."""
    if flag == ns.CLONE_NEWNS:
        ns.join_mount_namespace(fd)
        return
    try:
        ns.setns(fd, flag)
    except PermissionError:  # as the machine's own one answers to a user, who may be in it already
        if not _is_ours(fd, flag):
            raise


def unshare_cgroup(plan: Plan) -> None:
    """Enter a new cgroup namespace, whose root is the process's cgroup, if the plan has one."""
    if plan.new & ns.CLONE_NEWCGROUP:
        try:
            ns.unshare(ns.CLONE_NEWCGROUP)
        except OSError as e:
            raise failure("namespaces", "make new cgroup namespace", e, _hint(e)) from e


def _open(kind: str, path: str) -> int:
    try:  # a pipe, named by mistake, is not waited for
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise failure("namespaces", f"open {kind} namespace `{path}`", e) from e


def _join_path(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        join(fd, ns.CLONE_NEWPID)
    finally:
        os.close(fd)


def _is_ours(fd: int, flag: int) -> bool:
    """Whether the next child is in a namespace without more ado."""
    file = next(FILES[kind] for kind, known in FLAGS.items() if known == flag)
    if flag == ns.CLONE_NEWPID:
        file = "pid_for_children"
    return os.path.samestat(os.fstat(fd), os.stat(f"/proc/self/ns/{file}"))


def _hint(error: OSError) -> str | None:
    return "CAP_SYS_ADMIN is needed" if error.errno == 1 else None
