"""The record of a build, as the history keeps it."""

from __future__ import annotations

from msgspec import Struct, field

Strings = list[str]
_HOUR = 3600 * 10**9


class HistoryLimits(Struct, frozen=True, kw_only=True):
    """Limits of the history of builds: what is past both its number and its age (in ns) is forgotten."""

    max_entries: int = 50
    max_age: int = 48 * _HOUR


class RecordedExporter(Struct):
    """An output that a build was asked for: its type and its options."""

    kind: str
    attributes: dict[str, str] = field(default_factory=dict)


class RecordedBlob(Struct, kw_only=True):
    """A blob that a record names, as an OCI descriptor does."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)


class BuildRecord(Struct, kw_only=True):
    """A build as the history has it; times in ns since 1970, ``status``: running, completed, error or canceled.

    ``frontend``, ``attributes``, ``exporters`` and ``response`` are those of BuildKit's protocol.  A ``pinned`` one is
    not forgotten when newer ones come.  ``results`` are manifests and indexes in the image store, as long as they are
    there; the history itself has the ``attestations``, and the ``failure``, gRPC's status of the error.
    """

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
    frontend: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    exporters: list[RecordedExporter] = field(default_factory=list)
    response: dict[str, str] = field(default_factory=dict)
    results: list[RecordedBlob] = field(default_factory=list)
    attestations: list[RecordedBlob] = field(default_factory=list)
    failure: RecordedBlob | None = None
    pinned: bool = False
