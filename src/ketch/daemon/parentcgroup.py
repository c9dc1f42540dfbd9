"""The parent cgroup: whether it goes at the daemon's end, when nothing is in it.

One that was there before us may have been made by the administrator, with limits, and stays.
"""

from __future__ import annotations

import logging
import os

from ketch.daemon.config import Config
from ketch.runtime.cgroups import common

log = logging.getLogger(__name__)
_NAME = "cgroup-parent"
_BOOT = "/proc/sys/kernel/random/boot_id"


def made_here(data_root: str, parent: str) -> bool:
    """Whether daemons of this data root made it, or will; to be asked before anything is put into it.

    Cgroups do not outlive the machine's run, and the marker counts for this one only.
    """
    marker = os.path.join(data_root, _NAME)
    text = f"{_read(_BOOT).strip()} {parent}"
    if parent == Config.cgroup_parent or _read(marker) == text:
        return True
    if common.exists(parent):
        return False
    try:
        with open(marker, "w", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:  # a full disk is no reason not to start
        log.warning("note in `%s` that cgroup %s is ours: %s", marker, parent, e.strerror)
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""
