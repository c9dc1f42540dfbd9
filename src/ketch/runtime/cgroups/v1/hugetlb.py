"""hugetlb controller, v1."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Limit huge pages by size (``2MB``)."""
    for entry in resources.get("hugepageLimits") or ():
        files.write(directory, f"hugetlb.{entry['pageSize']}.limit_in_bytes", entry["limit"])
