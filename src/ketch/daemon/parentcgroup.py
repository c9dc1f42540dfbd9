"""The parent cgroup: whether it goes at the daemon's end, when nothing is in it.

One that was there before us may have been made by the administrator, with limits, and stays.
"""

from __future__ import annotations

import logging
import os

from ketch.daemon.config import Config
from ketch.runtime.cgroups import common, monitors

log = logging.getLogger(__name__)
_NAME = "cgroup-parent"
_BOOT = "/proc/sys/kernel/random/boot_id"


def made_here(exec_root: str, parent: str) -> bool:
    """Whether daemons of this exec root made it, or will; to be asked before anything is put into it.

    Those of former settings go now, where nothing is in them any more.
    """
    marker = os.path.join(exec_root, _NAME)
    before = known = _read(marker)
    for other in [one for one in known if one != parent]:
        monitors.remove(other)
    known = [one for one in known if one == parent or common.exists(one)]
    ours = parent == Config.cgroup_parent or parent in known or not common.exists(parent)
    if ours and parent not in known:
        known = [*known, parent]
    if known != before:
        with open(marker, "w", encoding="utf-8") as f:
            f.write("".join(f"{one}\n" for one in known))
    return ours


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().splitlines()
    except FileNotFoundError:
        return []
