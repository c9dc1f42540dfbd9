"""Limits that a container's cgroup cannot have: those of the other version, and of controllers that are not mounted.

A limit that would be left out silently would be a limit that somebody relies on.  Called before a cgroup is made, and
before it is changed.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ketch.runtime.oci_types import OciResources

_ONLY_V1 = (
    ("memory", "kernelTCP"),
    ("memory", "swappiness"),
    ("memory", "disableOOMKiller"),
    ("cpu", "realtimeRuntime"),
    ("cpu", "realtimePeriod"),
    ("blockIO", "leafWeight"),
    ("network", "classID"),
    ("network", "priorities"),
)
_NO_SWAPPINESS = (1 << 64) - 1
_NO_LIMITS = ("useHierarchy", "checkBeforeUpdate")
# The controllers of v1 by the limits that are theirs; a field that is not listed is `_CONTROLLERS`' of its object.
_CONTROLLERS = {
    "memory": "memory",
    "cpu": "cpu",
    "pids": "pids",
    "blockIO": "blkio",
    "hugepageLimits": "hugetlb",
    "devices": "devices",
    "rdma": "rdma",
}
_FIELDS = {
    ("cpu", "cpus"): "cpuset",
    ("cpu", "mems"): "cpuset",
    ("network", "classID"): "net_cls",
    ("network", "priorities"): "net_prio",
}


def check(resources: OciResources, version: int, controllers: Collection[str] = ()) -> None:
    """Raise RuntimeFailure for the first limit that cgroups of ``version`` do not have.

    ``controllers``: the mounted ones of v1.
    """
    memory = resources.get("memory") or {}
    if memory.get("kernel"):
        raise _refused("memory.kernel", "kernel memory has no limit of its own since Linux 5.16")
    if memory.get("useHierarchy") is False:
        raise _refused("memory.useHierarchy", "the kernel always counts hierarchically, since Linux 5.11")
    if version == 2:
        _check_unified(resources)
        return
    if resources.get("unified"):
        raise _refused("unified", "this machine has cgroup v1")
    for name, controller in _wanted(resources):
        if controller not in controllers:
            raise _refused(name, f"cgroup controller `{controller}` is not mounted")


def check_forbidden(resources: OciResources) -> None:
    """Raise RuntimeFailure for the first limit, for a process that may make no cgroups (`common.Layout`).

    Rules for devices need more than a cgroup in any case (`common.has_devices`).
    """
    names = [name for name, _ in _wanted(resources) if name != "devices"]
    if resources.get("unified"):
        names.append("unified")
    if names:
        raise _refused(names[0], "this process may make no cgroups")


def need(directory: str, name: str, field: str) -> None:
    """Raise RuntimeFailure unless a cgroup has the file ``name``, by which ``field`` of the resources is set."""
    if not files.exists(directory, name):
        raise _refused(field, f"the kernel has no `{name}`")


def has_swappiness(value: object) -> bool:
    """Whether ``memory.swappiness`` is given: 0 is a value, and -1, which clients write without a sign, is none."""
    return value is not None and value != _NO_SWAPPINESS


def check_usage(limit: int, usage: int) -> None:
    """Refuse a limit of memory that is exceeded already, as ``memory.checkBeforeUpdate`` asks."""
    if 0 < limit < usage:
        text = f"rejecting memory limit {limit} as it is lower than current usage {usage}"
        raise RuntimeFailure(f"set linux.resources.memory.limit: {text}", step="cgroups")


def _check_unified(resources: OciResources) -> None:
    given: Mapping[str, object] = resources
    for kind, name in _ONLY_V1:
        value = _member(given, kind).get(name)
        if has_swappiness(value) if name == "swappiness" else value:
            raise _refused(f"{kind}.{name}", "cgroup v2 has no such limit")
    for entry in (resources.get("blockIO") or {}).get("weightDevice") or ():
        if entry.get("leafWeight"):
            raise _refused("blockIO.weightDevice.leafWeight", "cgroup v2 has no such limit")


def _wanted(resources: OciResources) -> Iterator[tuple[str, str]]:
    """(field, controller of v1) of every limit that is set."""
    given: Mapping[str, object] = resources
    for kind, value in given.items():
        if not value or kind == "unified":
            continue
        if not isinstance(value, dict) or kind == "rdma":
            if kind in _CONTROLLERS:
                yield kind, _CONTROLLERS[kind]
            continue
        for name, limit in value.items():
            controller = _FIELDS.get((kind, name)) or _CONTROLLERS.get(kind)
            if limit and controller and name not in _NO_LIMITS and not _is_unlimited(kind, limit):
                yield f"{kind}.{name}", controller


def _is_unlimited(kind: str, limit: object) -> bool:
    """-1: no limit, which a missing controller grants."""
    return kind in ("memory", "pids", "cpu") and isinstance(limit, int) and (limit < 0 or limit == _NO_SWAPPINESS)


def _member(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _refused(name: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(f"linux.resources.{name} is not supported: {why}", step="cgroups")
