"""cpuset controller, v1: a new cpuset is empty and takes no process until it has CPUs and memory nodes."""

from __future__ import annotations

import os

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def inherit(directory: str) -> None:
    """Give a cpuset its parent's CPUs and nodes unless it has some, parents first.

    ``cgroup.clone_children`` lets the kernel do it for every cpuset made below from now on.
    """
    bare = []
    while not (files.read(directory, "cpuset.cpus") and files.read(directory, "cpuset.mems")):
        bare.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(bare):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(path, name):
                files.write(path, name, files.read(os.path.dirname(path), name))
        files.write(path, "cgroup.clone_children", "1")


def apply(directory: str, resources: OciResources) -> None:
    """Set CPUs and memory nodes (list syntax: ``0-3,7``)."""
    cpu = resources.get("cpu") or {}
    if cpu.get("cpus"):
        files.write(directory, "cpuset.cpus", cpu["cpus"])
    if cpu.get("mems"):
        files.write(directory, "cpuset.mems", cpu["mems"])
