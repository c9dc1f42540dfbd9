"""The namespaces of a daemon that no root has started: users, mounts, and the network in which bridges are.

    keeper   a process that does nothing: the namespaces are there as long as it, or a container, is
    ketchd   in its users and mounts, with the machine's network: registries, clients, published ports

A daemon that comes after another joins what is there, since the containers' monitors are in it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.linux import ns
from ketch.linux.netlink import links
from ketch.linux.netlink.client import Netlink
from ketch.rootless import keeper as keepers
from ketch.rootless.outward import DEVICE, Outward, machines_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.rootless.keeper import Keeper
    from ketch.rootless.user_ids import UserIds


class OwnNamespaces:
    """The namespaces that ketchd is in, and the network namespace of its bridges, which it is not in.

    ``needed``: somebody else is in them, or may be; they end with ketchd when nobody is.  ``remarks``: what the user
    lacks elsewhere.
    """

    def __init__(self, exec_root: str, keeper: Keeper, network_fd: int, *, needed: bool) -> None:
        self._exec_root, self._keeper = exec_root, keeper
        self._network_fd = network_fd
        self.needed = needed
        self.remarks: list[str] = []
        self.outward = Outward(keepers.network_path(exec_root), keeper.name)

    def each_process(self, settle: Callable[[int], object]) -> None:
        """Call ``settle`` with the pid of each process that is to live as long as containers, now and when one begins.

        Keeper and way out are such: whoever ends ketchd, with all that is in its cgroup, is not to end them.
        """
        settle(self._keeper.pid)
        self.outward.begun = settle

    def join_network(self) -> None:
        """Have the calling thread in the bridges' network namespace from now on."""
        ns.setns(self._network_fd, ns.CLONE_NEWNET)
        if self.needed and not self.outward.runs():
            _delete_device()  # of a program that a killed ketchd has not recorded yet, which ends with it

    def host_address(self) -> str:
        """The address at which containers reach the machine, whose loopback they do not; empty: there is none."""
        if self.outward.why_not:
            return ""
        return machines_address(4) or machines_address(6)

    def warnings(self) -> list[str]:
        """The sentences for `info` on what this user's containers lack."""
        found = [f"WARNING: {remark}" for remark in self.remarks]
        if self._keeper.alone:
            found.append(f"WARNING: containers have one user, root: {self._keeper.alone}")
        if self.outward.why_not:
            found.append(f"WARNING: containers reach nothing outside of this machine: {self.outward.why_not}")
        return found

    def end(self) -> None:
        """End the keeper, and with it all that nobody else is in."""
        keepers.end(self._exec_root, self._keeper)


def _delete_device() -> None:
    with Netlink() as rtnl:
        if any(link.name == DEVICE for link in links.list_links(rtnl)):
            rtnl.run([links.delete_link(DEVICE)])


@contextmanager
def entered(exec_root: str, ids: UserIds) -> Iterator[OwnNamespaces]:
    """A context as root of the namespaces, which are made with these ids first if there are none (KetchError).

    The calling process has one thread, and is the only one that does this for an exec root.  It stays there.
    """
    kept = keepers.kept(exec_root)
    keeper = kept or keepers.made(exec_root, ids)
    fds = [os.open(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "mnt", "net")]
    own = OwnNamespaces(exec_root, keeper, fds[2], needed=kept is not None)
    try:
        for fd in fds[:2]:
            ns.setns(fd)
            os.close(fd)
        keepers.be_root()
        yield own
    finally:
        if not own.needed:
            own.end()
