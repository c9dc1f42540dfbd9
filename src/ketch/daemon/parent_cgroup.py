"""Removal of the parent cgroup at the daemon's end, when the daemon made it and nothing is in it.

One that was there before us may have been made by the administrator, with limits, and stays.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ketch.daemon.settings.cgroups import DEFAULT_DIRECTORY
from ketch.runtime.cgroups import common, delegation, monitors
from ketch.runtime.cgroups.systemd import units
from ketch.storage.database.mark import boot_id

if TYPE_CHECKING:
    from ketch.daemon.settings.config import Config

log = logging.getLogger(__name__)
_NAME = "cgroup-parent"  # one a line, below the id of the boot in which they were made: cgroups end with it


def made_here(data_root: str, parent: str) -> bool:
    """Whether the parent cgroup is made by daemons of this data root; called before anything is put into it.

    Those of former settings go now, where nothing is in them any more.  Slices are systemd's.
    """
    marker = os.path.join(data_root, _NAME)
    before = known = _read(marker)
    for other in [path for path in known if path != parent]:
        monitors.remove(other)
    known = [path for path in known if path == parent or common.exists(path)]
    if units.is_slice(parent):
        ours = False
    else:
        ours = parent == DEFAULT_DIRECTORY or parent in known or not common.exists(parent)
    if ours and parent not in known:
        known = [*known, parent]
    if known != before:
        _write(marker, known)
    return ours


def vacate(config: Config) -> None:
    """Have no process in the cgroup that was given to a daemon, where it makes directories in that.

    So it is in a container and for a user; what is a unit of a user's systemd is that one's to fill.
    """
    here = common.layout()
    if here.version != 2 or here.manager or units.is_slice(config.cgroup_parent):
        return
    try:
        delegation.vacate((here.unified or "") + config.cgroup_base)
    except OSError as e:
        log.warning("no limits in cgroup `%s`, where processes stay: %s", config.cgroup_base or "/", e.strerror)


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            boot, *known = f.read().splitlines() or [""]
    except FileNotFoundError:
        return []
    return known if boot == boot_id() else []


def _write(path: str, known: list[str]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as f:
            f.write("".join(f"{line}\n" for line in (boot_id(), *known)))
    except OSError as e:
        e.filename = path  # whose disk is full
        raise
