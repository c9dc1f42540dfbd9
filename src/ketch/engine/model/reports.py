"""Reports on many objects: results of prunes, disk usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.errors import KetchError
    from ketch.images.model import Image


class Removed(Struct, frozen=True):
    """One removed object; ``size`` is the bytes that its removal frees."""

    id: str
    name: str
    size: int = 0


class ProcessTable(Struct, rename="pascal", frozen=True):
    """Processes of a container, as a row of cells each."""

    titles: list[str]
    processes: list[list[str]]


class PathChange(Struct, rename="pascal", frozen=True):
    """A path that a container changed in its root; ``kind`` is 0 for changed, 1 for added, 2 for deleted."""

    path: str
    kind: int


class Pruned(Struct, frozen=True):
    """The result of a prune or its dry run; ``freed`` in bytes.

    ``rows`` are what became of each name and layer of images, ``volumes`` those that go with a container.
    """

    objects: list[Removed]
    freed: int = 0
    volumes: list[Removed] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)


def check_removed(kind: str, failed: Sequence[KetchError]) -> None:
    """Raise the first error of a prune that has removed everything else."""
    if not failed:
        return
    first, more = failed[0], f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    text = f"prune {kind}: not all could be removed: {first.message}{more}"
    raise type(first)(text, hint=first.hint) from first


class DiskUsage(Struct, frozen=True):
    """Disk usage in bytes: of all layers, and by id or name of containers' writes and of volumes."""

    images: list[Image]
    layers: int
    containers: dict[str, int]
    volumes: dict[str, int]
