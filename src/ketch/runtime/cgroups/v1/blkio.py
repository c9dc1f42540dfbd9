"""blkio controller, v1."""

from __future__ import annotations

from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import BlkioReading, CgroupReading
    from ketch.runtime.oci_types import OciResources


_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def apply(directory: str, resources: OciResources) -> None:
    """Set weights (where a scheduler has them) and throttles."""
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        for name in ("blkio.weight", "blkio.bfq.weight"):
            if files.exists(directory, name):
                files.write(directory, name, block["weight"])
                break
    for entry in block.get("weightDevice") or ():
        for name in ("blkio.weight_device", "blkio.bfq.weight_device"):
            if files.exists(directory, name):
                files.write(directory, name, f"{entry['major']}:{entry['minor']} {entry.get('weight', 0)}")
                break
    for key, name in _THROTTLES:
        for device, rate in files.throttle_lines(block, key):
            files.write(directory, name, f"{device} {rate}")


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["blkio"]`` with the bytes moved for each device and operation."""
    text = files.read_or(directory, "blkio.throttle.io_service_bytes_recursive")
    if not text:
        text = files.read_or(directory, "blkio.throttle.io_service_bytes")
    found: list[BlkioReading] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and ":" in fields[0]:
            major, _, minor = fields[0].partition(":")
            found.append({"major": int(major), "minor": int(minor), "op": fields[1], "value": int(fields[2])})
    out["blkio"] = found
