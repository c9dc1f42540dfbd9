"""The container's own /proc, /sys and /dev, held by descriptor from the moment that they were mounted.

What comes later (devices, read-only and masked paths) is looked up from them and not by path: a process that shares
a volume or the root's directory with the container could meanwhile rename what lies below a mount point, or put a
link in its place, and a mask would land on files that nobody reads (CVE-2025-31133, CVE-2025-52881).  Below these
roots there is nothing that such a process can change.
"""

from __future__ import annotations

import os

from ketch.runtime.rootfs import paths

PLACES = frozenset(("/proc", "/sys", "/dev"))


class Anchors:
    """Descriptors by place, for a root; `close` when all is mounted."""

    __slots__ = ("_held", "_root_fd")

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._held: dict[str, int] = {}

    def hold(self, destination: str, tree_fd: int) -> None:
        """Keep a descriptor of the mount ``tree_fd``, which stays the caller's, if it is at one of PLACES."""
        if destination in PLACES:
            self._close(self._held.get(destination, -1))
            self._held[destination] = os.dup(tree_fd)

    def find(self, path: str) -> tuple[int, str]:
        """(the root to look it up from, the path there); the descriptor stays ours."""
        path = os.path.normpath(path)
        top = path[: path.find("/", 1)] if path.find("/", 1) > 0 else path
        fd = self._held.get(top)
        return (self._root_fd, path) if fd is None else (fd, path[len(top) :] or "/")

    def open(self, path: str, flags: int = paths.O_PATH, *, links: bool = True) -> int:
        """Open a path as `paths.open_in` does."""
        fd, rest = self.find(path)
        return paths.open_in(fd, rest, flags, links=links)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._held.values():
            self._close(fd)
        self._held.clear()

    @staticmethod
    def _close(fd: int) -> None:
        if fd >= 0:
            os.close(fd)
