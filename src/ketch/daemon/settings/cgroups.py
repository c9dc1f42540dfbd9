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
    from ketch.runtime.cgroups.common import Layout

DEFAULT_DIRECTORY = "/ketch"
_USERS_SCOPES = "/app.slice"  # of a user's systemd: where it has programs
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
        help=f"where cgroups of containers are (default {DEFAULT_DIRECTORY}; {units.default_slice()} with systemd)",
    )


def resolve(config: Config) -> None:
    """Check the options, and give ``cgroup_parent`` its form (InvalidArgument, FailedPrecondition)."""
    if _driver(config) == "cgroupfs":
        parent = config.cgroup_parent or DEFAULT_DIRECTORY
        config.cgroup_base = _base(common.layout(), parent)
        config.cgroup_parent = os.path.join(config.cgroup_base, parent.lstrip("/")) if config.cgroup_base else parent
        if units.is_slice(config.cgroup_parent):
            config.cgroup_parent = f"/{config.cgroup_parent}"
        return
    config.cgroup_parent = config.cgroup_parent or units.default_slice()
    if not units.is_slice(config.cgroup_parent):
        raise InvalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')


def _base(here: Layout, parent: str) -> str:
    """The path of the cgroup that a daemon without the machine's rights has all others in; empty: the top.

    Where a user's systemd has the cgroups, it is a scope of the daemon's own, named after ``parent``.
    """
    if not here.manager:
        return here.given
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in parent.strip("/"))
    return f"{here.given}{_USERS_SCOPES}/{name if name.startswith('ketch') else f'ketch-{name}'}.scope"


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
    here = common.layout()
    if here.forbidden:
        return "this user was given no cgroup (is there a session of theirs? `loginctl` shows them)"
    if here.version != 2:
        return "this machine's controllers are on cgroup v1"
    if here.given:
        return "" if here.manager else "no systemd of this user runs"
    return "" if os.path.isdir(_BOOTED) else "systemd does not run here"
