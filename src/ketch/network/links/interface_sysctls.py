"""Kernel settings of one interface of a container, written in its network namespace before the interface comes up.

Without being asked: an interface that has no IPv6 address speaks no IPv6 (``disable_ipv6``), and none takes router
advertisements (``accept_ra``): whoever else is on the network could give the container addresses, a default route and
name servers with one packet.  The values of ``all`` and ``default`` stay as the kernel made them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.linux.netlink import client as netlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.network.model.record import Endpoint

_ROOT = "/proc/sys/net"
# Docker's client makes lower case of what stands in ``--network name=…,driver-opt=…``.
_OWN = re.compile(r"net\.(ipv4|ipv6|mpls)\.([a-z0-9_]+)\.(?i:IFNAME)\.([a-z0-9_]+)=(.*)", re.DOTALL)
_NAMED = re.compile(r"net[./](ipv4|ipv6|mpls)[./]([a-z0-9_]+)[./](eth[0-9]+)[./]([a-z0-9_]+)")


class Setting(NamedTuple):
    """``net.FAMILY.GROUP.IFNAME.KEY``; an empty ``ifname`` is the interface of the endpoint that it is given to."""

    ifname: str
    family: str
    group: str
    key: str
    value: str


def parse(option: str) -> list[Setting]:
    """An endpoint's option: ``net.X.Y.IFNAME.Z=V``, several with commas (InvalidArgument, in Docker's words)."""
    found = []
    for item in filter(None, option.split(",")):
        match = _OWN.fullmatch(item)
        if match is None:
            raise _not_recognised(item)
        found.append(Setting("", *match.groups()))
    return found


def unreadable(option: str) -> list[str]:
    """The faults of an endpoint's option, in Docker's words."""
    faults = []
    for item in option.split(","):
        try:
            if not parse(item):
                raise _not_recognised(item)
        except InvalidArgument as e:
            faults.append(e.message)
    return faults


def _not_recognised(item: str) -> InvalidArgument:
    return InvalidArgument(
        f"unrecognised network interface sysctl '{item}'; represent 'net.X.Y.ethN.Z=V' as "
        "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
    )


def named(sysctls: dict[str, str]) -> dict[str, Setting]:
    """The sysctls of a container's interfaces (``net.ipv6.conf.eth0.accept_ra``), by name."""
    matches = {name: _NAMED.fullmatch(name) for name in sysctls}
    return {name: Setting(m[3], m[1], m[2], m[4], str(sysctls[name])) for name, m in matches.items() if m is not None}


def write(netns_fd: int, made: Endpoint, asked: Iterable[Setting]) -> None:
    """Write our and the requested sysctls of an endpoint's interface (InvalidArgument: it does not exist)."""
    with netlink.entered(netns_fd):
        if os.path.isdir(f"{_ROOT}/ipv6/conf/{made.ifname}"):  # else there is no IPv6 (or MTU < 1280)
            for key, value in (("accept_ra", "0"), ("disable_ipv6", "0" if made.ip6 else "1")):
                _write(f"{_ROOT}/ipv6/conf/{made.ifname}/{key}", value)
        for setting in asked:
            if setting.ifname not in ("", made.ifname):
                continue
            path = f"{_ROOT}/{setting.family}/{setting.group}/{made.ifname}/{setting.key}"
            try:
                _write(path, setting.value)
            except FileNotFoundError as e:
                raise UnclassifiedArgument(f"set up interface `{made.ifname}`: {path} is not a sysctl file") from e
            except OSError as e:
                raise UnclassifiedArgument(f"set {path} to `{setting.value}`: {os.strerror(e.errno or 0)}") from e


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
