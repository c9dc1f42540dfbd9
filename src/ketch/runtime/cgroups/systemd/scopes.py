"""The conversations with systemd about one scope, each on a connection of its own (org.freedesktop.systemd1(5)).

RuntimeFailure, with systemd's words: it refused, or does not answer.
"""

from __future__ import annotations

import time
from errno import ENOENT

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups.systemd.bus import Bus, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.cgroups.systemd.properties import Properties

_ERRORS = "org.freedesktop.systemd1."
_EXISTS = f"{_ERRORS}UnitExists"
_GONE = (f"{_ERRORS}NoSuchUnit", f"{_ERRORS}ScopeNotRunning", f"{_ERRORS}UnitInactive")
_JOB_S = 30.0
_STOP_S = 2.0
_RULE = (
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',"
    "interface='org.freedesktop.systemd1.Manager',member='JobRemoved',arg2='{unit}'"
)


def start(unit: str, properties: Properties) -> bool:
    """Start a scope; returns when it has its processes.  False: there is a unit of that name."""
    bus = Bus()
    try:
        bus.watch(_RULE.format(unit=unit))
        try:
            bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", [unit, "fail", properties, []])
        except BusError as e:
            if e.name == _EXISTS:
                return False
            raise _failure("start", unit, e.message) from e
        deadline = time.monotonic() + _JOB_S
        while (job := bus.signal("JobRemoved", "uoss"))[2] != unit:
            if time.monotonic() > deadline:
                raise _failure("start", unit, f"its job has not ended within {_JOB_S:g} s")
    finally:
        bus.close()
    if job[3] != "done":
        raise _failure("start", unit, f"its job ended as `{job[3]}`")
    return True


def attach(unit: str, pid: int, below: str = "") -> bool:
    """Put a process into a scope, or the cgroup ``below`` it (``/NAME``); False: there is none that runs."""
    return _say(Bus(), "enter", unit, "AttachProcessesToUnit", "ssau", [unit, below, [pid]])


def change(unit: str, properties: Properties) -> None:
    """Change properties until the next boot; what is not given stays (FileNotFoundError: it has ended)."""
    if not _say(Bus(), "set limits of", unit, "SetUnitProperties", "sba(sv)", [unit, True, properties]):
        raise FileNotFoundError(ENOENT, "it has ended", unit)


def stop(unit: str) -> None:
    """Have a scope stopped, if there is one; does not wait for it, nor long for an answer: monitors have clients."""
    _say(Bus(_STOP_S), "stop", unit, "StopUnit", "ss", [unit, "replace"])


def _say(bus: Bus, verb: str, unit: str, member: str, signature: str, values: list[Any]) -> bool:
    """Call a method about a unit, and close the connection; False: the unit is gone."""
    try:
        bus.call(member, signature, values)
    except BusError as e:
        if e.name not in _GONE:
            raise _failure(verb, unit, e.message) from e
        return False
    finally:
        bus.close()
    return True


def _failure(verb: str, unit: str, reason: str) -> RuntimeFailure:
    return RuntimeFailure(f"{verb} unit `{unit}`: {reason}", step="cgroups")
