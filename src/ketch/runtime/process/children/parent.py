"""A forked child's connection to the process that forked it, with what only the OCI command line asks for."""

from __future__ import annotations


class Parent:
    """The child's end of ``sync_fd``, a SEQPACKET socket, for reports to the parent and its ``go``.

    ``preserve_fds``: so many descriptors from 3 on are left to the program.  ``start_fd``: a listening socket on which
    to wait for ``go`` instead, for a parent that does not stay.  ``early``: tell of the network namespace as soon as it
    is there, so that it can be wired while the rest is done.  ``no_pivot``: the root is entered without pivot_root(2),
    which the kernel refuses while the host's root is its initial RAM disk.  ``no_new_keyring``: the session keyring is
    the caller's.
    """

    __slots__ = ("early", "no_new_keyring", "no_pivot", "passing", "preserve_fds", "start_fd", "sync_fd")

    def __init__(
        self,
        sync_fd: int,
        *,
        preserve_fds: int = 0,
        start_fd: int = -1,
        early: bool = False,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> None:
        self.sync_fd = sync_fd
        self.preserve_fds = preserve_fds
        self.start_fd = start_fd
        self.early = early
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.passing = False

    def pass_on(self, passing: bool) -> Parent:
        """Have the child, if ``passing``, fork the first process in the container's cgroup (see `crossing`).

        It is not in the container's pid namespace then.  Returns this object.
        """
        self.passing = passing
        return self


class Prepared:
    """A first process that was forked before its container was known, and waits to be told of it.

    ``sync_fd``: our end of its socket; ``network``: descriptors of its network namespace and of a NETLINK_ROUTE socket;
    ``passing``: it will fork the first process itself.
    """

    __slots__ = ("network", "passing", "pid", "sync_fd")

    def __init__(self, pid: int, sync_fd: int, network: list[int], *, passing: bool) -> None:
        self.pid, self.sync_fd, self.network, self.passing = pid, sync_fd, network, passing
