"""What a machine has that an engine could leave behind: counted before and after."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass


@dataclass
class Census:
    """Names of mounts, links, cgroups, firewall tables and processes."""

    things: set[str]

    @classmethod
    def take(cls) -> Census:
        return cls(set(_mounts()) | set(_links()) | set(_cgroups()) | set(_tables()) | set(_processes()))

    def beyond(self, before: Census) -> list[str]:
        """What is here now and was not; the kernel gets a moment for what it removes by itself."""
        deadline = time.monotonic() + 3
        now = self
        while (extra := now.things - before.things) and time.monotonic() < deadline:
            time.sleep(0.05)
            now = Census.take()
        return sorted(extra)


def _mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            yield "mount " + line.split()[4]


def _links():
    for name in os.listdir("/sys/class/net"):
        yield "link " + name


def _cgroups():
    for root, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            yield "cgroup " + os.path.join(root, name)


def _tables():
    import nftables

    _, output, _ = nftables.Nftables().cmd("list tables")
    for line in output.splitlines():
        yield "nft " + line.strip()


def _processes():
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        if "ketch" in line and ("launcher" in line or "ketchd" in line or "monitor" in line):
            yield "process " + line.strip()
