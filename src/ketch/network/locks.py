"""Locks between daemons that share a network namespace.

The namespace's inode is a part of each lock's name: daemons in namespaces of their own do not meet.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import Conflict, Unavailable
from ketch.storage import file_lock

if TYPE_CHECKING:
    from ketch.storage.file_lock import FileLock

_TURN_S = 10.0


def claim_table(name: str) -> FileLock:
    """Lock this firewall table for the daemon, until the lock is closed (Conflict: another has it)."""
    try:
        return file_lock.take_named(f"table-{_namespace()}-{name}")
    except file_lock.Held as e:
        raise Conflict(
            f"use firewall table `{name}`: another ketchd (pid {e.pid}) uses it, and the bridge that it is for",
            hint="give each daemon its own --bridge and --bip",
        ) from e


def turn() -> FileLock:
    """Lock the choice of a subnet among daemons, until its address is set (Unavailable after 10 s)."""
    try:
        return file_lock.take_named(f"subnets-{_namespace()}", wait_s=_TURN_S)
    except file_lock.Held as e:
        raise Unavailable(
            f"choose a subnet: another ketchd (pid {e.pid}) has been doing so for {_TURN_S:.0f} s",
            hint="see whether it hangs or is stopped",
        ) from e


def _namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
