"""hugetlb controller, v1."""

from __future__ import annotations

from typing import Any

from ketch.runtime.cgroups import files


def apply(directory: str, resources: dict[str, Any]) -> None:
    """Limit huge pages by size (``2MB``)."""
    for entry in resources.get("hugepageLimits") or ():
        files.write(directory, f"hugetlb.{entry['pageSize']}.limit_in_bytes", entry["limit"])
