"""pids controller; v1 and v2 have the same files."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import CgroupReading
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Limit the number of tasks; 0 and below is unlimited, also without the controller."""
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None and (limit > 0 or files.exists(directory, "pids.max")):
        files.write(directory, "pids.max", limit if limit > 0 else "max")


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["pids"]``; limit 0 is unlimited."""
    limit = files.read_or(directory, "pids.max")
    out["pids"] = {
        "current": files.number(files.read_or(directory, "pids.current")),
        "limit": 0 if limit == "max" else files.number(limit),
    }
