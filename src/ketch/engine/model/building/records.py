"""The record of a build, as the history keeps it."""

from __future__ import annotations

from msgspec import Struct, field

Strings = list[str]


class BuildRecord(Struct, kw_only=True):
    """A build as the history has it; times in ns since 1970, ``status``: running, completed, error or canceled."""

    ref: str
    name: str
    created: int
    completed: int = 0
    status: str = "running"
    total_steps: int = 0
    cached_steps: int = 0
    completed_steps: int = 0
    error: str = ""
    target: str = ""
    image: str = ""
    platforms: Strings = field(default_factory=list)
    dockerfile: str = ""
    context: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    warnings: int = 0
