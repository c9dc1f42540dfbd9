"""A time namespace of the container's own, with its clocks' offsets (time_namespaces(7))."""

from __future__ import annotations

import os

from ketch.errors import RuntimeFailure
from ketch.linux import ns
from ketch.runtime.failure import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.namespaces import Plan
    from ketch.runtime.oci_types import OciTimeOffsets


def check(plan: Plan, offsets: dict[str, OciTimeOffsets]) -> None:
    """Refuse offsets of clocks that are not the container's own: they stand fast once a process is in a namespace."""
    if offsets and not plan.is_new("time"):
        hint = 'add {"type": "time"} to linux.namespaces'
        text = "set linux.timeOffsets: the container has no new time namespace"
        raise RuntimeFailure(text, step="namespaces", hint=hint)


def make(offsets: dict[str, OciTimeOffsets]) -> None:
    """Make a time namespace for the children of this process, and set its clocks; needs the host's rights."""
    try:
        ns.unshare(ns.CLONE_NEWTIME)
    except OSError as e:
        raise failure("namespaces", "make new time namespace", e) from e
    if offsets:
        _set(offsets)


def enter() -> None:
    """Enter what `make` made: before Linux 6.1 execve(2) does not lead there."""
    try:
        fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            ns.setns(fd, ns.CLONE_NEWTIME)
        finally:
            os.close(fd)
    except OSError as e:
        raise failure("namespaces", "enter the new time namespace", e) from e


def _set(offsets: dict[str, OciTimeOffsets]) -> None:
    lines = [
        f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n"
        for clock, offset in offsets.items()
        if offset
    ]
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, "".join(lines).encode())
    except OSError as e:
        raise failure("namespaces", f"set linux.timeOffsets `{' '.join(lines).strip()}`", e) from e
    finally:
        os.close(fd)
