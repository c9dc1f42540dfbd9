"""The keeper: a process that does nothing, so that a rootless daemon's namespaces are there as long as it is.

Namespaces of users and mounts cannot be bound to a file by who is not root of the machine: processes alone hold them.
The containers' monitors are in these as well, so a keeper that has ended is replaced by another one beside them.
"""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ketch import pidfd
from ketch.linux import mount, ns
from ketch.rootless import permission
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.rootless.user_ids import UserIds

_RECORD = "namespaces.json"
_SLEEP = "/bin/sleep"  # the smallest program that every distribution has
_MADE = ns.CLONE_NEWUSER | ns.CLONE_NEWNS | ns.CLONE_NEWNET


class Keeper(msgspec.Struct, frozen=True):
    """The process; ``started``: its start time, as pids are used again.

    ``mounts``: the number of the mount namespace; ``name``: a random text, which no other namespaces ever have.
    ``alone``: why there is one user alone in them; empty: there are others.
    """

    pid: int
    started: int
    mounts: int = 0
    name: str = ""
    alone: str = ""


def network_path(exec_root: str) -> str:
    """The path at which the network namespace is mounted, for programs that are told of it."""
    return os.path.join(exec_root, "network")


def kept(exec_root: str) -> Keeper | None:
    """The keeper of the last daemon's namespaces (KetchError), a new one if it has ended and they have not."""
    try:
        with open(os.path.join(exec_root, _RECORD), "rb") as f:
            keeper = msgspec.json.decode(f.read(), type=Keeper)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    if pidfd.start_time(keeper.pid) == keeper.started:
        return keeper
    network = network_path(exec_root)
    holder = _holder(keeper.mounts, network)
    if holder < 0:
        return None
    try:
        return _recorded(exec_root, keeper, partial(_fork, partial(_joined, holder, network)))
    finally:
        os.close(holder)


def made(exec_root: str, ids: UserIds) -> Keeper:
    """A keeper of new namespaces with these ids (KetchError)."""
    keeper = Keeper(0, 0, 0, secrets.token_hex(8), ids.alone)
    return _recorded(exec_root, keeper, partial(_fork, partial(_new, network_path(exec_root)), ids))


def end(exec_root: str, keeper: Keeper) -> None:
    """End it, and with it all that nobody else is in."""
    if pidfd.start_time(keeper.pid) == keeper.started:
        os.kill(keeper.pid, signal.SIGKILL)
    with suppress(FileNotFoundError):  # a login's runtime directory goes with the login
        os.unlink(os.path.join(exec_root, _RECORD))


def _holder(mounts: int, network: str) -> int:
    """A descriptor of a process in the mount namespace of this number, if our network is in it; -1: there is none.

    Numbers are used again by other namespaces, whose file there is an ordinary one.
    """
    nsfs = os.stat("/proc/self/ns/net").st_dev
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fd = pidfd.open_process(int(name))
        except OSError:
            continue
        with suppress(OSError):  # other users', and those that are ending
            if (
                os.stat(f"/proc/{name}/ns/mnt").st_ino == mounts
                and os.stat(f"/proc/{name}/root{network}").st_dev == nsfs
            ):
                return fd
        os.close(fd)
    return -1


def _recorded(exec_root: str, known: Keeper, fork: Callable[[], int]) -> Keeper:
    """The keeper that is forked, once the disk knows of it."""
    with Undo() as undo:
        pid = fork()
        undo.callback(os.waitpid, pid, 0)
        undo.callback(os.kill, pid, signal.SIGKILL)
        mounts = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        keeper = msgspec.structs.replace(known, pid=pid, started=pidfd.start_time(pid), mounts=mounts)
        path = os.path.join(exec_root, _RECORD)
        try:
            with open(f"{path}.new", "wb") as f:
                f.write(msgspec.json.encode(keeper))
            os.rename(f"{path}.new", path)
        except OSError as e:
            e.filename = path  # whose disk is full
            raise
        undo.pop_all()
    return keeper


def _fork(enter: Callable[[int, int], None], ids: UserIds | None = None) -> int:
    """Fork the keeper, which is in its namespaces when this returns (KetchError)."""
    told_r, told_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(told_r)
            os.close(go_w)
            _keep(told_w, go_r, enter)
        finally:
            os._exit(1)
    os.close(told_w)
    os.close(go_r)
    try:
        if (told := os.read(told_r, 4096)) != b"+":
            raise permission.refused(int(told or b"0"))
        if ids is not None:
            ids.write(pid)
        os.write(go_w, b"+")
        if told := os.read(told_r, 4096):
            raise permission.refused(int(told))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(told_r)
        os.close(go_w)
    return pid


def _keep(told: int, go: int, enter: Callable[[int, int], None]) -> None:
    """Be the keeper; returns after an error, which is told."""
    try:
        os.setsid()
        os.chdir("/")
        enter(told, go)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.execv(_SLEEP, [_SLEEP, "infinity"])
    except OSError as e:
        os.write(told, b"%d" % (e.errno or 0))


def _new(network: str, told: int, go: int) -> None:
    """Be in new namespaces, whose ids the parent writes."""
    ns.unshare(_MADE)
    os.write(told, b"+")
    if not os.read(go, 1):
        os._exit(1)
    be_root()
    mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
    with open(network, "w", encoding="ascii"):
        mount.mount("/proc/self/ns/net", network, None, mount.MS_BIND)


def _joined(holder: int, network: str, told: int, go: int) -> None:
    """Be in the namespaces that the holder is in."""
    ns.setns(holder, ns.CLONE_NEWUSER | ns.CLONE_NEWNS)
    network_fd = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    ns.setns(network_fd, ns.CLONE_NEWNET)
    be_root()
    os.write(told, b"+")
    if not os.read(go, 1):
        os._exit(1)


def be_root() -> None:
    """Be the namespace's root, whoever this process was outside."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
