"""The namespaces of a daemon that no root has started: users, mounts, and the network in which bridges are.

    keeper   a process that does nothing: the namespaces are there as long as it, or a container, is
    ketchd   in its users and mounts, with the machine's network: registries, clients, published ports

A daemon that comes after another joins what is there, since the containers' monitors are in it.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import FailedPrecondition, KetchError
from ketch.linux import mount, ns
from ketch.pidfd import start_time
from ketch.rootless.outward import Outward
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.rootless.user_ids import UserIds

_RECORD = "namespaces.json"
_SLEEP = "/bin/sleep"  # the smallest program that every distribution has
_FLAGS = ns.CLONE_NEWUSER | ns.CLONE_NEWNS | ns.CLONE_NEWNET


class Keeper(msgspec.Struct, frozen=True):
    """The process that keeps the namespaces; ``started``: its start time, as pids are used again.

    ``alone``: why there is one user alone in them; empty: there are others.
    """

    pid: int
    started: int
    alone: str = ""


class OwnNamespaces:
    """The namespaces that ketchd is in, and the network namespace of its bridges, which it is not in.

    ``needed``: somebody else is in them, or may be; they end with ketchd when nobody is.
    """

    def __init__(self, exec_root: str, keeper: Keeper, network_fd: int, *, needed: bool) -> None:
        self._exec_root, self._keeper = exec_root, keeper
        self._network_fd = network_fd
        self.needed = needed
        self.outward = Outward(_network(exec_root), keeper.pid)

    def join_network(self) -> None:
        """Have the calling thread in the bridges' network namespace from now on."""
        ns.setns(self._network_fd, ns.CLONE_NEWNET)

    def warnings(self) -> list[str]:
        """The sentences for `info` on what this user's containers lack."""
        found = []
        if self._keeper.alone:
            found.append(f"WARNING: containers have one user, root: {self._keeper.alone}")
        if self.outward.why_not:
            found.append(f"WARNING: containers reach nothing outside of this machine: {self.outward.why_not}")
        return found

    def end(self) -> None:
        """End the keeper, and with it all that nobody else is in."""
        if start_time(self._keeper.pid) == self._keeper.started:
            os.kill(self._keeper.pid, signal.SIGKILL)
        with suppress(FileNotFoundError):  # a login's runtime directory goes with the login
            os.unlink(os.path.join(self._exec_root, _RECORD))


@contextmanager
def entered(exec_root: str, ids: UserIds) -> Iterator[OwnNamespaces]:
    """A context as root of the namespaces, which are made with these ids first if there are none (KetchError).

    The calling process has one thread, and is the only one that does this for an exec root.  It stays there.
    """
    kept = _kept(exec_root)
    keeper = kept or _made(exec_root, ids)
    fds = [os.open(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "mnt", "net")]
    own = OwnNamespaces(exec_root, keeper, fds[2], needed=kept is not None)
    try:
        for fd in fds[:2]:
            ns.setns(fd)
            os.close(fd)
        _be_root()
        yield own
    finally:
        if not own.needed:
            own.end()


def _network(exec_root: str) -> str:
    """The path at which the network namespace is mounted, for programs that are told of it."""
    return os.path.join(exec_root, "network")


def _kept(exec_root: str) -> Keeper | None:
    try:
        with open(os.path.join(exec_root, _RECORD), "rb") as f:
            keeper = msgspec.json.decode(f.read(), type=Keeper)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return keeper if start_time(keeper.pid) == keeper.started else None


def _made(exec_root: str, ids: UserIds) -> Keeper:
    with Undo() as undo:
        pid = _fork(ids, _network(exec_root))
        undo.callback(os.waitpid, pid, 0)
        undo.callback(os.kill, pid, signal.SIGKILL)
        keeper = Keeper(pid, start_time(pid), ids.alone)
        path = os.path.join(exec_root, _RECORD)
        with open(f"{path}.new", "wb") as f:
            f.write(msgspec.json.encode(keeper))
        os.rename(f"{path}.new", path)
        undo.pop_all()
    return keeper


def _fork(ids: UserIds, network: str) -> int:
    """Fork the keeper, which is in its namespaces when this returns (KetchError)."""
    told_r, told_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(told_r)
            os.close(go_w)
            _keep(told_w, go_r, network)
        finally:
            os._exit(1)
    os.close(told_w)
    os.close(go_r)
    try:
        if (told := os.read(told_r, 4096)) != b"+":
            raise _forbidden(told.decode())
        ids.write(pid)
        os.write(go_w, b"+")
        if told := os.read(told_r, 4096):
            raise KetchError(f"make namespaces: {told.decode()}")
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(told_r)
        os.close(go_w)
    return pid


def _keep(told: int, go: int, network: str) -> None:
    """Be the keeper; returns after an error, which is told."""
    try:
        os.setsid()
        os.chdir("/")
        ns.unshare(_FLAGS)
        os.write(told, b"+")
        if not os.read(go, 1):
            return
        _be_root()
        mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
        with open(network, "w", encoding="ascii"):
            mount.mount("/proc/self/ns/net", network, None, mount.MS_BIND)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.execv(_SLEEP, [_SLEEP, "infinity"])
    except OSError as e:
        os.write(told, os.strerror(e.errno or 0).lower().encode())


def _be_root() -> None:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _forbidden(reason: str) -> KetchError:
    return FailedPrecondition(f"make a user namespace: {reason or 'its process ended'}", hint=_advice())


def _advice() -> str:
    for name, forbids, text in (
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as f:
                if f.read().strip() == forbids:
                    return f"the administrator can allow it: {text}"
        except FileNotFoundError:
            continue
    return "does the kernel have user namespaces (CONFIG_USER_NS)? is this a container that forbids them?"
