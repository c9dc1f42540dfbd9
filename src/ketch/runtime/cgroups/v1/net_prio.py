"""net_prio controller, v1: the priority of a cgroup's packets on each interface."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Set the priority on each interface that is named, of the network namespace that the process is in."""
    for entry in (resources.get("network") or {}).get("priorities") or ():
        files.write(directory, "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}")
