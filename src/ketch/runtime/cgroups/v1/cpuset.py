"""cpuset controller, v1: a new cpuset is empty and takes no process until it has CPUs and memory nodes."""

from __future__ import annotations

import os

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inherit(directory: str) -> None:
    """Give a cpuset its parent's CPUs and nodes unless it has some, parents first.

    ``cgroup.clone_children`` lets the kernel do it for every cpuset made below from now on.
    """
    if files.read(directory, "cpuset.cpus") and files.read(directory, "cpuset.mems"):
        return
    parent = os.path.dirname(directory)
    inherit(parent)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(directory, name):
            files.write(directory, name, files.read(parent, name))
    files.write(directory, "cgroup.clone_children", "1")


def apply(directory: str, resources: dict[str, Any]) -> None:
    """Set CPUs and memory nodes (list syntax: ``0-3,7``)."""
    cpu = resources.get("cpu") or {}
    if cpu.get("cpus"):
        files.write(directory, "cpuset.cpus", cpu["cpus"])
    if cpu.get("mems"):
        files.write(directory, "cpuset.mems", cpu["mems"])
