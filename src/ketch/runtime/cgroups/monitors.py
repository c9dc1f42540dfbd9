"""The cgroup of the launcher and of all monitors, beside the containers': ``<parent>/monitors`` in every hierarchy.

Where the parent is a slice of systemd's it is a scope, which daemons with the same parent share.

Without it they would stay where ketchd is.  A service manager that ends ketchd's cgroup (systemd does, unless a unit
says ``KillMode=process``) would kill every monitor, and every container with it; and their memory would be counted as
ketchd's.  It has no limits, and no container is below it.  The launcher enters it first of all, so that what monitors
share with it belongs here as well.
"""

from __future__ import annotations

import os
import time

from ketch.errors import KetchError
from ketch.runtime.cgroups import common, delegation, files, tree
from ketch.runtime.cgroups.systemd import units

NAME = "monitors"
EMPTY_S = 3.0  # a monitor leaves a client that has everything 2 s to end its connection


def enter(parent: str) -> str:
    """Move the calling process, which has one thread, in; returns the reason of a failure, else an empty text."""
    if units.is_slice(parent):
        return _share_scope(parent)
    path = _path(parent)
    try:
        cgroup = common.at(path)
        cgroup.make()
        _join(cgroup, path)
        if (unified := _unified(path)) is not None:
            tree.make(unified)
            files.write(unified, "cgroup.procs", "0")
    except OSError as e:
        return f"{e.filename or path}: {os.strerror(e.errno or 0)}"
    except KetchError as e:
        return e.message
    return ""


def bring(parent: str, pid: int) -> str:
    """Move another process of a user's daemon there, to live as long as containers; returns as `enter` does.

    It may be the first, with which systemd makes the unit that ``parent`` is in.  Without a systemd it goes to where
    the launcher is; one of a user stays, if that has no cgroup yet.
    """
    if units.is_slice(parent):
        return _share_scope(parent, pid)
    if not (unit := delegation.unit_path(parent)):
        return _move(parent, pid)
    from ketch.runtime.cgroups.systemd import scopes
    from ketch.runtime.cgroups.systemd.manager import SystemdCgroup

    here = common.layout()
    directory = (here.unified or "") + unit
    parent, name = unit.removeprefix(here.given).strip("/").split("/")
    try:
        if os.path.isdir(f"{directory}/{delegation.LEAF}") and scopes.attach(name, pid, f"/{delegation.LEAF}"):
            return ""
        place = f"{parent}::{name.removesuffix('.scope')}"
        SystemdCgroup.at(place, (here.unified or "") + here.given).share(f"Ketch containers of {name}", pid)
        delegation.vacate(directory)
    except OSError as e:
        return f"{e.filename or unit}: {os.strerror(e.errno or 0)}"
    except KetchError as e:
        return e.message
    return ""


def _move(parent: str, pid: int) -> str:
    here = common.layout()
    for root in {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}:
        directory = f"{root}{os.path.normpath('/' + parent)}/{NAME}"
        if os.path.isdir(directory):
            try:
                files.write(directory, "cgroup.procs", str(pid))
            except OSError as e:
                return f"{directory}: {os.strerror(e.errno or 0).lower()}"
    return ""


def remove(parent: str, *, with_parent: bool = True, patience_s: float = EMPTY_S) -> None:
    """Remove the monitors' cgroup, and ``parent`` if asked, where they are empty.

    A monitor that is about to end is waited for, for a limited time, unless containers are there.  A scope goes by
    itself.
    """
    if units.is_slice(parent):
        return
    here = common.layout()
    roots = {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}
    bases = [root + os.path.normpath("/" + parent) for root in roots]
    # Containers' are not in every hierarchy: the monitors' alone are in the one of v2 without controllers.
    deadline = time.monotonic() + (0 if any(_has_others(base) for base in bases) else patience_s)
    for base in bases:
        try:
            tree.remove(f"{base}/{NAME}", max(deadline - time.monotonic(), 0))
        except OSError:
            continue  # in use
    if with_parent:
        common.prune(parent)


def _has_others(base: str) -> bool:
    try:
        return any(os.path.basename(child) != NAME for child in tree.children(base))
    except OSError:
        return False


def _join(cgroup: common.Cgroup, path: str) -> None:
    """Move the calling process in; from outside of what a user's systemd has, that one can."""
    try:
        cgroup.join()
    except PermissionError:
        if not (unit := delegation.unit_path(path)):
            raise
        from ketch.runtime.cgroups.systemd import scopes

        scopes.attach(os.path.basename(unit), os.getpid(), path.removeprefix(unit))


def _share_scope(parent: str, pid: int = 0) -> str:
    from ketch.runtime.cgroups.systemd.manager import SystemdCgroup

    here = common.layout()
    top = (here.unified or "") + (here.given if here.manager else "")
    try:
        unit = f"{parent}:ketch-{NAME}:{parent.removesuffix('.slice')}"
        SystemdCgroup.at(unit, top).share(f"Ketch monitors of {parent}", pid)
    except KetchError as e:
        return e.message
    return ""


def _path(parent: str) -> str:
    return os.path.join("/", parent, NAME)


def _unified(path: str) -> str | None:
    """The v2 cgroup beside v1 (without controllers), by which service managers assign processes to units."""
    here = common.layout()
    return here.unified + os.path.normpath(path) if here.version == 1 and here.unified else None
