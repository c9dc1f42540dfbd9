"""rdma controller; v1 and v2 have the same file."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciResources


def apply(directory: str, resources: OciResources) -> None:
    """Limit handles and objects of RDMA devices; what is not named of a device stays."""
    for device, limits in (resources.get("rdma") or {}).items():
        words = [device]
        if limits.get("hcaHandles") is not None:
            words.append(f"hca_handle={limits['hcaHandles']}")
        if limits.get("hcaObjects") is not None:
            words.append(f"hca_object={limits['hcaObjects']}")
        if len(words) > 1:
            files.write(directory, "rdma.max", " ".join(words))
