"""Reports on many objects: results of prunes, disk usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.images.model import Image


@dataclass(frozen=True)
class Removed:
    """One removed object; ``size`` is the bytes that its removal frees."""

    id: str
    name: str
    size: int = 0


@dataclass(frozen=True)
class Pruned:
    """The result of a prune or its dry run; ``freed`` in bytes.

    ``rows`` are what became of each name and layer of images, ``volumes`` those that go with a container.
    """

    objects: list[Removed]
    freed: int = 0
    volumes: list[Removed] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class DiskUsage:
    """Disk usage in bytes: of all layers, and by id or name of containers' writes and of volumes."""

    images: list[Image]
    layers: int
    containers: dict[str, int]
    volumes: dict[str, int]
