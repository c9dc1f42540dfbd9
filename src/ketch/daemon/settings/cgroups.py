"""The cgroup driver (``--exec-opt native.cgroupdriver``) and the parent of containers' cgroups.

A parent that is a slice of systemd's has the form ``xxx.slice``, one of directories begins with a slash: by that
everything else knows which driver it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.runtime.cgroups import common
from ketch.runtime.cgroups.systemd import units

if TYPE_CHECKING:
    import argparse

    from ketch.daemon.settings.config import Config

DEFAULT_DIRECTORY = "/ketch"
_DEFAULT_SLICE = "system.slice"
_OPTION = "native.cgroupdriver"
_BOOTED = "/run/systemd/system"  # sd_booted(3)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags ``--exec-opt`` and ``--cgroup-parent``."""
    add = parser.add_argument
    add(
        "--exec-opt",
        metavar="KEY=VALUE",
        action="append",
        dest="exec_opts",
        help=f"{_OPTION}=cgroupfs or systemd: who makes cgroups (default systemd where it runs, on cgroup v2)",
    )
    add(
        "--cgroup-parent",
        metavar="PATH|SLICE",
        help=f"where cgroups of containers are (default {DEFAULT_DIRECTORY}; {_DEFAULT_SLICE} with systemd)",
    )


def resolve(config: Config) -> None:
    """Check the options, and give ``cgroup_parent`` its form (InvalidArgument, FailedPrecondition)."""
    if _driver(config) == "cgroupfs":
        parent = config.cgroup_parent or DEFAULT_DIRECTORY
        config.cgroup_parent = f"/{parent}" if units.is_slice(parent) else parent
        return
    config.cgroup_parent = config.cgroup_parent or _DEFAULT_SLICE
    if not units.is_slice(config.cgroup_parent):
        raise InvalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')


def _driver(config: Config) -> str:
    """The driver that is asked for, else systemd where it manages the machine.

    A parent of directories asks for those.
    """
    chosen = ""
    for option in config.exec_opts:
        key, _, value = (part.strip() for part in option.partition("="))
        if not key or not value:
            raise InvalidArgument(f"invalid exec-opt ({option}): must be formatted 'opt=value'")
        if key.lower() != _OPTION:
            raise InvalidArgument(f"invalid exec-opt ({option}): unknown option: '{key}'")
        chosen = chosen or value
    if chosen not in ("", "cgroupfs", "systemd"):
        raise InvalidArgument(f"{_OPTION} option {chosen} not supported", hint="use cgroupfs or systemd")
    missing = _missing()
    if chosen == "systemd" and missing:
        raise FailedPrecondition(
            f"use the cgroup driver systemd: {missing}", hint=f"leave out --exec-opt {_OPTION}=systemd"
        )
    if chosen:
        return chosen
    by_parent = not config.cgroup_parent or units.is_slice(config.cgroup_parent)
    return "systemd" if by_parent and not missing else "cgroupfs"


def _missing() -> str:
    """The reason why systemd cannot make cgroups here; empty when it can."""
    if common.layout().version != 2:
        return "this machine's controllers are on cgroup v1"
    return "" if os.path.isdir(_BOOTED) else "systemd does not run here"
