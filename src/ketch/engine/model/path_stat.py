"""Status of a path in a container, as ``cp`` asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os


class PathStat:
    """The content of ``X-Docker-Container-Path-Stat``; ``link_target`` is within the container."""

    def __init__(self, name: str, status: os.stat_result, link_target: str) -> None:
        self.name = name
        self.size = status.st_size
        self.mode = status.st_mode
        self.mtime_ns = status.st_mtime_ns
        self.link_target = link_target
