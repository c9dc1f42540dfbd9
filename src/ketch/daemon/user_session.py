"""Remarks on what the machine gives to the user of a rootless daemon: a cgroup, controllers, life after a logout."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.runtime.cgroups import common, delegation, files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WANTED = ("cpu", "cpuset", "io", "memory", "pids")
_LINGERING = "/var/lib/systemd/linger"  # where logind keeps it (loginctl(1), enable-linger), by the user's name


def remarks(names: Sequence[str], *, contained: bool, lasting: bool) -> Iterator[str]:
    """One sentence for each thing that is missing, which says what to do.

    ``names``: the user's; ``contained``: it is root of a container; ``lasting``: containers are to stay when the user
    leaves.
    """
    here = common.layout()
    if here.forbidden:
        yield f"containers have no limits, and cannot be paused: {_why_forbidden(contained=contained)}"
    elif here.given:
        has = files.read_or((here.unified or "") + here.given, "cgroup.controllers").split()
        if missing := [name for name in _WANTED if name not in has]:
            hint = " (Delegate= of user@.service)" if here.manager else ""
            yield f"containers have no limits of {', '.join(missing)}: this user was given no such controllers{hint}"
    if lasting and delegation.users_runtime() and not any(os.path.exists(f"{_LINGERING}/{name}") for name in names):
        yield "containers end with the last login of this user: `loginctl enable-linger` lets them stay"


def _why_forbidden(*, contained: bool) -> str:
    if common.machine_version() != 2:
        return "this machine's controllers are on cgroup v1, which is not for users"
    if delegation.users_runtime():
        return "the cgroup of this user's systemd is not the user's"
    if contained:
        return "this container may not write to its cgroup (--security-opt nesting=true, or writable-cgroups=true)"
    return "no systemd of this user runs here (a login starts one, `su` and `sudo` do not), nor was a cgroup given"
