"""Limits of containers' sizes (``--storage-opt size=``), as project quotas of the file system below.

The project's id is kept where it counts, on the container's directories: what is in use is read from
there, so that nothing can be out of step after a crash.
"""

from __future__ import annotations

import os
import threading

from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.linux.filesystems import projquota
from ketch.notation import sizes

_FIRST = 1 << 20  # below are those that an administrator may have given out
_lock = threading.Lock()


def parse(options: dict[str, str] | None) -> int:
    """The bytes of ``size=``, 0 without (InvalidArgument, in Docker's words)."""
    for key in options or {}:
        if key.lower() != "size":
            raise UnclassifiedArgument(f"Unknown option {key}", hint="the only storage option of a container is size=")
    text = next(iter((options or {}).values()), "")
    if not options:
        return 0
    size = sizes.parse(text)
    if size is None:
        raise InvalidArgument(f"invalid size: '{text}'", hint="write for example size=10G")
    return size


class Quotas:
    """Project quotas of the file system that holds ``containers``."""

    def __init__(self, containers: str) -> None:
        self._containers = containers
        self.device, self.kind = backing(containers)

    def check(self) -> None:
        """Raise InvalidArgument when this file system enforces no project quotas."""
        if self.kind not in ("xfs", "ext4") or not projquota.enabled(self.device, self.kind):
            raise InvalidArgument(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                " or ext4 with 'prjquota'",
                hint=f"{self._containers} is on {self.kind}",
            )

    def limit(self, directories: list[str], size: int) -> None:
        """Limit these empty directories together to ``size`` bytes."""
        with _lock:
            number = projquota.project(directories[0]) or self._free()
            for directory in directories:
                projquota.set_project(directory, number)
        projquota.set_limit(self.device, self.kind, number, size)

    def release(self, directory: str) -> None:
        """Remove the limit of a directory before its removal; no error without one."""
        try:
            number = projquota.project(directory)
        except OSError:  # gone, or a file system without projects
            return
        if number >= _FIRST:
            projquota.set_limit(self.device, self.kind, number, 0)

    def _free(self) -> int:
        used = set()
        for name in os.listdir(self._containers):
            try:
                used.add(projquota.project(os.path.join(self._containers, name, "upper")))
            except OSError:  # being made or removed
                continue
        return max({_FIRST - 1} | {n for n in used if n >= _FIRST}) + 1


def backing(path: str) -> tuple[str, str]:
    """(device, file system type) of the mount that holds a path, as ``/proc/self/mountinfo`` names them (proc(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            left, _, right = line.partition(" - ")
            if left.split()[2] == wanted:
                kind, source = right.split()[:2]
                return source, kind
    return "", "unknown"
