"""cpuset controller, v2: an unset cpuset inherits by itself."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Set CPUs and memory nodes (list syntax: ``0-3,7``)."""
    cpu = resources.get("cpu") or {}
    if cpu.get("cpus"):
        files.write(directory, "cpuset.cpus", cpu["cpus"])
    if cpu.get("mems"):
        files.write(directory, "cpuset.mems", cpu["mems"])
