"""A name of this run of the machine: what was written without being synced counts as long as it is the same."""

from __future__ import annotations


def boot_id() -> str:
    """The kernel's name of its run."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()
