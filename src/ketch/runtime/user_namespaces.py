"""User namespaces: the container's own, or one that it joins, and the ids of the host that its ids are.

What a container gets from the host is made with the host's rights before its user namespace is entered
(`process.children.crossing`).  So `OpenUserNamespace` has a descriptor, to enter it or to see mounts through it, and
the two maps, for owners that are written on the host's side.
"""

from __future__ import annotations

import os
from _signal import SIGKILL  # type: ignore[import-not-found]

from ketch.contexts import ExitStack
from ketch.errors import RuntimeFailure
from ketch.linux import ns
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.namespaces import Plan
    from ketch.runtime.oci_types import OciConfig, OciIdMapping, OciLinux

_FIELDS = ("containerID", "hostID", "size")
_MOST_RANGES = 340  # user_namespaces(7)
_END = (1 << 32) - 1  # no id: (uid_t)-1


class OpenUserNamespace:
    """``fd`` is a descriptor of it, closed by `close`; the maps are as the runtime's own user namespace sees them."""

    __slots__ = ("_gids", "_uids", "fd")

    def __init__(self, fd: int, uids: list[OciIdMapping], gids: list[OciIdMapping]) -> None:
        self.fd = fd
        self._uids, self._gids = uids, gids

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def uid(self, inside: int) -> int:
        """The host's number of a user (RuntimeFailure: it has none)."""
        return _outside(inside, self._uids, "user")

    def gid(self, inside: int) -> int:
        """The host's number of a group (RuntimeFailure: it has none)."""
        return _outside(inside, self._gids, "group")

    def root(self) -> tuple[int, int]:
        """The host's numbers of its root user and root group."""
        return self.uid(0), self.gid(0)


def owner(user: OpenUserNamespace | None, uid: int, gid: int) -> tuple[int, int]:
    """The ids to write for an owner by the container's ids: with the host's rights, or without a user namespace."""
    return (uid, gid) if user is None else (user.uid(uid), user.gid(gid))


def check(document: OciConfig, plan: Plan) -> None:
    """Refuse maps without a namespace, a new namespace without maps, and mounts that ask for one that is not there."""
    linux = document.get("linux") or {}
    for kind, given in (("uidMappings", linux.get("uidMappings")), ("gidMappings", linux.get("gidMappings"))):
        if given and not plan.has_user:
            raise RuntimeFailure(
                f"read config.json: linux.{kind} is given, and the container has no user namespace of its own",
                step="config",
                hint='add {"type": "user"} to linux.namespaces',
            )
        if not given and plan.is_new("user"):
            raise RuntimeFailure(
                f"read config.json: linux.{kind} is not given for the new user namespace", step="config"
            )
        _check_ranges(given or [], f"linux.{kind}")
    for mount in document.get("mounts") or ():
        mapped = mount.get("uidMappings") or mount.get("gidMappings") or plan.has_user
        if not mapped and not {"idmap", "ridmap"}.isdisjoint(mount.get("options") or ()):
            raise RuntimeFailure(
                f"read config.json: mount `{mount['destination']}` has the option idmap, and there are neither "
                "uidMappings and gidMappings nor a user namespace to take them from",
                step="config",
            )


def of(plan: Plan, linux: OciLinux) -> OpenUserNamespace | None:
    """The user namespace that the plan has, if any; the caller closes it (RuntimeFailure)."""
    if not plan.has_user:
        return None
    given = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    path = plan.join.get("user")
    if path is None:
        try:
            return OpenUserNamespace(make(*given), *given)
        except OSError as e:
            raise failure("namespaces", "make new user namespace", e, _hint(e)) from e
    try:
        found = _joined(path)
    except OSError as e:
        raise failure("namespaces", f"join user namespace `{path}`", e) from e
    for kind, wanted, real in zip(("uid", "gid"), given, (found._uids, found._gids), strict=True):
        if wanted and _sorted(wanted) != _sorted(real):
            raise RuntimeFailure(
                f"join user namespace `{path}`: linux.{kind}Mappings is {_text(wanted)}, "
                f"the namespace has {_text(real)}",
                step="namespaces",
            )
    return found


def of_process(pid: int) -> OpenUserNamespace | None:
    """The user namespace of a process; None: it is that of the runtime (OSError)."""
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
        os.close(fd)
        return None
    return OpenUserNamespace(fd, *(_read(f"/proc/{pid}/{kind}") for kind in ("uid_map", "gid_map")))


def make(uids: list[OciIdMapping], gids: list[OciIdMapping]) -> int:
    """A descriptor of a new user namespace with these maps, the caller's to close (OSError).

    A passing child makes it, its parent writes the maps (user_namespaces(7)), and the descriptor outlives the child.
    """
    with _Passing(ns.unshare_user) as directory:
        for kind, mappings in (("uid_map", uids), ("gid_map", gids)):
            with open(f"{directory}/{kind}", "wb", buffering=0) as file:
                file.write(_text(mappings).replace(", ", "\n").encode())
        return os.open(f"{directory}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _joined(path: str) -> OpenUserNamespace:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with _Passing(lambda: ns.setns(fd, ns.CLONE_NEWUSER)) as directory:
            return OpenUserNamespace(fd, *(_read(f"{directory}/{kind}") for kind in ("uid_map", "gid_map")))
    except BaseException:
        os.close(fd)
        raise


def _read(path: str) -> list[OciIdMapping]:
    with open(path, "rb", buffering=0) as file:
        lines = file.read().decode().splitlines()
    found = []
    for line in lines:
        inside, outside, size = line.split()
        entry: OciIdMapping = {"containerID": int(inside), "hostID": int(outside), "size": int(size)}
        found.append(entry)
    return found


class _Passing:
    """A context with the /proc directory of a child that has entered a user namespace and ends with the context."""

    def __init__(self, enter: Callable[[], None]) -> None:
        self._enter = enter
        self._pid = self._done_w = -1

    def __enter__(self) -> str:
        with ExitStack() as pipes:
            ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
            pipes.callback(os.close, ready_r)
            with ExitStack() as others:
                others.callback(os.close, ready_w)
                done_r, self._done_w = os.pipe2(os.O_CLOEXEC)
                others.callback(os.close, done_r)
                try:
                    self._pid = os.fork()
                except OSError:
                    os.close(self._done_w)
                    raise
                if self._pid == 0:
                    self._child(ready_w, done_r)
            # Its name in the /proc that is mounted here, whatever pid namespace it was born into.
            told = os.read(ready_r, 32).decode()
        if not told.isdigit():
            self.__exit__()
            number = -int(told or "-1")
            raise OSError(number, os.strerror(number))
        return f"/proc/{told}"

    def __exit__(self, *_: object) -> None:
        os.close(self._done_w)
        # It would see that, unless the child of another thread has a copy, and waits for ours to end in the same way.
        os.kill(self._pid, SIGKILL)
        os.waitpid(self._pid, 0)

    def _child(self, ready_w: int, done_r: int) -> None:
        try:
            os.close(self._done_w)
            try:
                told = os.readlink("/proc/self")
                self._enter()
            except OSError as e:
                told = f"-{e.errno}"
            os.write(ready_w, told.encode())
            os.read(done_r, 1)
        finally:
            os._exit(0)


def _outside(inside: int, mappings: list[OciIdMapping], what: str) -> int:
    for entry in mappings:
        offset = inside - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return entry["hostID"] + offset
    raise RuntimeFailure(
        f"find {what} {inside} of the container on the host: the user namespace maps {_text(mappings)}",
        step="user",
        hint="a line is: id in the container, id on the host, how many",
    )


def _check_ranges(mappings: list[OciIdMapping], name: str) -> None:
    if len(mappings) > _MOST_RANGES:
        text = f"read config.json: {name} has {len(mappings)} ranges, {_MOST_RANGES} are possible"
        raise RuntimeFailure(text, step="config")
    for entry in mappings:
        numbers = [entry.get(field) for field in _FIELDS] if isinstance(entry, dict) else [None]
        if any(type(number) is not int or not 0 <= number <= _END for number in numbers) or not entry["size"]:
            raise RuntimeFailure(
                f"read config.json: {name} has {entry!r}, which is no range of containerID, hostID and size",
                step="config",
            )


def _sorted(mappings: list[OciIdMapping]) -> list[list[int]]:
    return sorted([entry["containerID"], entry["hostID"], entry["size"]] for entry in mappings)


def _text(mappings: list[OciIdMapping]) -> str:
    return ", ".join("{containerID} {hostID} {size}".format(**entry) for entry in mappings)


def _hint(error: OSError) -> str | None:
    if error.errno == 1:
        if ns.LIMITED:
            return "these ids are not among the engine's own: only root's engine has some for containers' namespaces"
        return "CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID are needed"
    if error.errno == 22:
        return "two ranges must not overlap"
    return "user.max_user_namespaces says how many there may be" if error.errno == 28 else None
