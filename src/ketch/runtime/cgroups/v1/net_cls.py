"""net_cls controller, v1: the class by which tc(8) knows the packets of a cgroup's processes."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Set the class; 0 is none."""
    class_id = (resources.get("network") or {}).get("classID")
    if class_id is not None:
        files.write(directory, "net_cls.classid", class_id)
