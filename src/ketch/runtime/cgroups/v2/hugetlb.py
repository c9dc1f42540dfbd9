"""hugetlb controller, v2."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Limit huge pages by size (``2MB``): those in use, and those that are reserved."""
    for entry in resources.get("hugepageLimits") or ():
        for name in ("max", "rsvd.max"):
            if name == "max" or files.exists(directory, f"hugetlb.{entry['pageSize']}.{name}"):
                files.write(directory, f"hugetlb.{entry['pageSize']}.{name}", entry["limit"])
