"""Progress of a build, in the form of BuildKit's clients (client.SolveStatus, ``--progress=rawjson``)."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class VertexState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A vertex as it is now; times as RFC 3339 with ns.  ``error`` is what ended it."""

    digest: str
    inputs: list[str] = []
    name: str = ""
    started: str | None = None
    completed: str | None = None
    cached: bool = False
    error: str = ""
    progress_group: dict[str, Any] | None = msgspec.field(default=None, name="progressGroup")


class VertexStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The progress of a part of a vertex: bytes of a layer, of a context."""

    id: str
    vertex: str
    name: str = ""
    total: int = 0
    current: int
    timestamp: str
    started: str | None = None
    completed: str | None = None


class LogLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Output of a vertex, as it came: not a whole line; ``stream`` 1: output, 2: errors."""

    vertex: str
    stream: int = 0
    data: bytes
    timestamp: str


class VertexWarning(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A warning about a vertex, or a line of the Dockerfile."""

    vertex: str
    level: int = 0
    short: bytes = b""
    detail: list[bytes] = []
    url: str = ""
    source_info: dict[str, Any] | None = msgspec.field(default=None, name="sourceInfo")
    range: list[dict[str, Any]] | None = None


class SolveStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A change of the state: rows that are new or replace older ones."""

    vertexes: list[VertexState] = []
    statuses: list[VertexStatus] = []
    logs: list[LogLine] = []
    warnings: list[VertexWarning] = []


class VertexLog(Protocol):
    """The sink of a vertex at work.  From the event loop only."""

    def write(self, stream: int, data: bytes) -> None:
        """Pass on output of a command."""
        ...

    def status(self, name: str, current: int, total: int = 0, *, done: bool = False) -> None:
        """Tell how far a part is: in bytes, or in whatever it counts."""
        ...

    def warn(self, text: str) -> None:
        """Tell a warning."""
        ...
