"""blkio controller, v1."""

from __future__ import annotations

from ketch.runtime.cgroups import files, refusals

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
# CFQ's (before Linux 5.0), BFQ's.
_WEIGHTS = ("blkio.weight", "blkio.bfq.weight")
_DEVICE_WEIGHTS = ("blkio.weight_device", "blkio.bfq.weight_device")
_LEAF_WEIGHTS = ("blkio.leaf_weight",)
_DEVICE_LEAF_WEIGHTS = ("blkio.leaf_weight_device",)


def apply(directory: str, resources: OciResources) -> None:
    """Set weights (where a scheduler has them) and throttles."""
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        _weigh(directory, "weight", _WEIGHTS, block["weight"])
    if block.get("leafWeight"):
        _weigh(directory, "leafWeight", _LEAF_WEIGHTS, block["leafWeight"])
    for entry in block.get("weightDevice") or ():
        device = f"{entry['major']}:{entry['minor']}"
        if entry.get("weight"):
            _weigh(directory, "weightDevice", _DEVICE_WEIGHTS, f"{device} {entry['weight']}")
        if entry.get("leafWeight"):
            _weigh(directory, "weightDevice.leafWeight", _DEVICE_LEAF_WEIGHTS, f"{device} {entry['leafWeight']}")
    for key, name in _THROTTLES:
        for device, rate in files.throttle_lines(block, key):
            files.write(directory, name, f"{device} {rate}")


def _weigh(directory: str, field: str, names: tuple[str, ...], value: str | int) -> None:
    """Write a weight to the file of the scheduler that the kernel has, the first one that is there."""
    name = next((name for name in names if files.exists(directory, name)), names[-1])
    refusals.need(directory, name, f"blockIO.{field}")
    files.write(directory, name, value)


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
