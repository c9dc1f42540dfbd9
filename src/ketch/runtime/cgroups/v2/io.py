"""io controller, v2."""

from __future__ import annotations

from errno import EOPNOTSUPP

from ketch.runtime.cgroups import files, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cgroups.readings import BlkioReading, CgroupReading
    from ketch.runtime.oci_types import OciResources


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def apply(directory: str, resources: OciResources) -> None:
    """Set weights (OCI 10…1000), of all devices and of single ones, and throttles."""
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        _need_weight(directory, "blockIO.weight")
        for name, scale in _WEIGHTS:
            if files.exists(directory, name):
                files.write(directory, name, scale(block["weight"]))
    for entry in block.get("weightDevice") or ():
        _need_weight(directory, "blockIO.weightDevice")
        _weigh(directory, f"{entry['major']}:{entry['minor']}", entry.get("weight", 0))
    for key, name in _THROTTLES:
        for device, rate in files.throttle_lines(block, key):
            files.write(directory, "io.max", f"{device} {name}={rate or 'max'}")


def _need_weight(directory: str, field: str) -> None:
    if not any(files.exists(directory, name) for name, _ in _WEIGHTS):
        refusals.need(directory, _WEIGHTS[-1][0], field)


def _weigh(directory: str, device: str, value: int) -> None:
    """Set the weight of one device: its scheduler's, or (io.cost.qos) the one by which its cost is shared."""
    for name, scale in _WEIGHTS:
        if not files.exists(directory, name):
            continue
        try:
            files.write(directory, name, f"{device} {scale(value)}")
        except OSError as e:
            if e.errno != EOPNOTSUPP or (name, scale) == _WEIGHTS[-1]:
                raise
        else:
            return


def weight(value: int) -> int:
    """io.weight (1…10000) for an OCI block weight (10…1000)."""
    return 1 + (min(max(value, 10), 1000) - 10) * 9999 // 990


_WEIGHTS = (("io.bfq.weight", int), ("io.weight", weight))


def stats(directory: str, out: CgroupReading) -> None:
    """Fill ``out["blkio"]`` with bytes by device, under v1's names for the operations."""
    found: list[BlkioReading] = []
    for line in files.read_or(directory, "io.stat").splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        for key, operation in (("rbytes", "Read"), ("wbytes", "Write")):
            value = int(values.get(key, 0))
            found.append({"major": int(major), "minor": int(minor), "op": operation, "value": value})
    out["blkio"] = found
