"""The parent cgroup: whether it goes at the daemon's end, when nothing is in it.

One that was there before us may have been made by the administrator, with limits, and stays.
"""

from __future__ import annotations

import os

from ketch.daemon.config import Config
from ketch.runtime.cgroups import common

_NAME = "cgroup-parent"


def made_here(exec_root: str, parent: str) -> bool:
    """Whether daemons of this exec root made it, or will; to be asked before anything is put into it."""
    marker = os.path.join(exec_root, _NAME)
    if parent == Config.cgroup_parent or _read(marker) == parent:
        return True
    if common.exists(parent):
        return False
    with open(marker, "w", encoding="utf-8") as f:
        f.write(parent)
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""
