"""Volatile upper directories, which are never synced: faster, and lost or damaged in a crash of the machine.

Overlay leaves ``work/work/incompat/volatile`` behind and refuses to mount the directory again, because it cannot know
whether the machine has gone down meanwhile (Linux, filesystems/overlayfs.rst §"Volatile mount").  The boot's id beside
the directory tells us: within one boot the page cache has everything, also after processes were killed.
"""

from __future__ import annotations

import os

from ketch.errors import DataLoss
from ketch.storage.removal import remove_tree

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def make_mountable(directory: str) -> None:
    """Make a container's directory mountable again (DataLoss: the machine has crashed since its mount)."""
    mark = os.path.join(directory, "work", "work", "incompat", "volatile")
    if not os.path.isdir(mark):
        return
    if _read(_record(directory)) != _read(_BOOT_ID):
        raise DataLoss(
            f"mount container {os.path.basename(directory)[:12]}: the machine went down while its files were volatile: "
            "what it has written may be damaged",
            hint=f"remove the container, or, to go on at your own risk, the directory {mark}",
        )
    remove_tree(os.path.dirname(mark))


def begin(directory: str) -> None:
    """Record the boot id at the mount of a container's directory."""
    with open(_record(directory), "w", encoding="ascii") as f:
        f.write(_read(_BOOT_ID))


def _record(directory: str) -> str:
    return os.path.join(directory, "volatile-boot")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return ""
