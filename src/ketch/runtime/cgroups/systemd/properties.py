"""Limits as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).

The limits are written to the cgroup's files as well, and more exactly.  A unit has them because systemd writes what it
knows again whenever it changes anything of the unit (``systemctl set-property``, a new parent): what it does not know
it sets back.  Properties that are there since systemd 244 are used.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import delegation
from ketch.runtime.cgroups.v2 import cpu, io, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.oci_types import OciResources

    Value = tuple[str, object]
    Properties = list[tuple[str, Value]]

_STOP_S = 10  # between SIGTERM and SIGKILL, as for `stop`
_UNLIMITED = (1 << 64) - 1
_PERCENT_US = 10000  # of a second: systemd counts quotas in whole percents of a processor
_SECOND_US = 1000000
_MOST_CPUS = 8192


def of_limits(resources: OciResources) -> Properties:
    """The properties of ``resources``, without what systemd has no property for."""
    found: dict[str, Value] = {}
    for name, text in _by_file(resources).items():
        convert = _PROPERTIES.get(name)
        if convert is not None:
            found.update(convert(name, text))
    return list(found.items())


def of_new_scope(
    description: str, parent: str, pid: int, resources: OciResources, *, longer: bool = False
) -> Properties:
    """The properties of a container's scope, which ``pid`` will be in; ``longer``: of those who outlive containers.

    Everything below it is the container's (Delegate).  Whoever stops the machine stops ketchd, which stops containers
    in order: systemd itself has no dependencies by which it would do so (DefaultDependencies).  A scope that failed is
    forgotten as others are (CollectMode).  Containers without a limit of tasks have none: a unit would have
    DefaultTasksMax.  A user's systemd that ends, with the last login, stops scopes itself: in a container's usual time
    (TimeoutStop), not in a service's, for which a shutdown would wait.
    """
    properties: Properties = [
        ("Description", ("s", description)),
        ("Slice", ("s", parent)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        ("DefaultDependencies", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("CPUAccounting", ("b", True)),
        ("MemoryAccounting", ("b", True)),
        ("IOAccounting", ("b", True)),
        ("TasksAccounting", ("b", True)),
        *of_limits(resources),
    ]
    if all(name != "TasksMax" for name, _ in properties):
        properties.append(("TasksMax", ("t", _UNLIMITED)))
    if delegation.users_runtime():
        properties.append(("TimeoutStopUSec", ("t", (2 * _STOP_S if longer else _STOP_S) * _SECOND_US)))
    return properties


def _by_file(resources: OciResources) -> dict[str, str]:
    """The limits as texts by the names of v2's files; those of ``unified`` as they are."""
    found: dict[str, str] = {}
    memory_limits, cpu_limits = resources.get("memory") or {}, resources.get("cpu") or {}
    limit, swap = memory_limits.get("limit") or 0, memory_limits.get("swap") or 0
    if limit:
        found["memory.max"] = _limit(limit)
    if memory_limits.get("reservation"):
        found["memory.low"] = _limit(memory_limits["reservation"])
    if swap:
        found["memory.swap.max"] = memory.swap_max(limit, swap)
    if cpu_limits.get("shares"):
        found["cpu.weight"] = str(cpu.weight(cpu_limits["shares"]))
    quota, period = cpu_limits.get("quota") or 0, cpu_limits.get("period") or 0
    if quota or period:
        found["cpu.max"] = f"{_limit(quota or -1)} {period or cpu.DEFAULT_PERIOD_US}"
    for key in ("cpus", "mems"):
        if cpu_limits.get(key):
            found[f"cpuset.{key}"] = str(cpu_limits.get(key))
    weight = (resources.get("blockIO") or {}).get("weight")
    if weight:
        found["io.weight"] = str(io.weight(weight))
    tasks = (resources.get("pids") or {}).get("limit")
    if tasks is not None:
        found["pids.max"] = _limit(tasks or -1)
    return {**found, **(resources.get("unified") or {})}


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _number(name: str, text: str) -> int:
    if text.strip() == "max":
        return _UNLIMITED
    try:
        return int(text)
    except ValueError:
        raise RuntimeFailure(f"set `{name}` to `{text}`: not a number", step="cgroups") from None


def _plain(property_: str) -> Callable[[str, str], Properties]:
    return lambda name, text: [(property_, ("t", _number(name, text)))]


def _weight(name: str, text: str) -> Properties:
    """``io.weight``: a number, ``default`` and a number, or one device's, for which units have another property."""
    words = text.split()
    if len(words) == 2:
        return _plain("IOWeight")(name, words[1]) if words[0] == "default" else []
    return _plain("IOWeight")(name, text)


def _quota(name: str, text: str) -> Properties:
    """``cpu.max`` (quota and period, in microseconds) as time in each second of a processor."""
    quota_text, _, period_text = text.strip().partition(" ")
    quota, period = _number(name, quota_text), _number(name, period_text or str(cpu.DEFAULT_PERIOD_US))
    if period <= 0:
        raise RuntimeFailure(f"set `{name}` to `{text}`: no such period", step="cgroups")
    if quota != _UNLIMITED:
        quota = -(-quota * _SECOND_US // period // _PERCENT_US) * _PERCENT_US
    return [("CPUQuotaPerSecUSec", ("t", quota)), ("CPUQuotaPeriodUSec", ("t", period))]


def _cpus(property_: str) -> Callable[[str, str], Properties]:
    return lambda name, text: [(property_, ("ay", bits(name, text)))]


def bits(name: str, text: str) -> bytes:
    """A list such as ``0-3,7`` as a set of bits, the lowest first."""
    found = 0
    for part in text.replace("\n", ",").split(","):
        first, dash, last = part.strip().partition("-")
        if not first:
            continue
        begin = _number(name, first)
        end = _number(name, last) if dash else begin
        if not 0 <= begin <= end < _MOST_CPUS:
            raise RuntimeFailure(f"set `{name}` to `{text}`: no list of numbers and ranges", step="cgroups")
        found |= (1 << end + 1) - (1 << begin)
    return found.to_bytes((found.bit_length() + 7) // 8, "little")


_PROPERTIES: dict[str, Callable[[str, str], Properties]] = {
    "memory.min": _plain("MemoryMin"),
    "memory.low": _plain("MemoryLow"),
    "memory.high": _plain("MemoryHigh"),
    "memory.max": _plain("MemoryMax"),
    "memory.swap.max": _plain("MemorySwapMax"),
    "cpu.weight": _plain("CPUWeight"),
    "cpu.max": _quota,
    "cpuset.cpus": _cpus("AllowedCPUs"),
    "cpuset.mems": _cpus("AllowedMemoryNodes"),
    "io.weight": _weight,
    "pids.max": _plain("TasksMax"),
}
