"""Reports on many objects: what a prune has removed, what takes space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.images.model import Image


@dataclass(frozen=True)
class Removed:
    """One object; ``size`` in bytes is what its end frees."""

    id: str
    name: str
    size: int = 0


@dataclass(frozen=True)
class Pruned:
    """Objects that are gone, or would be; ``freed`` in bytes.

    ``rows`` are what became of each name and layer of images, ``volumes`` those that go with a container.
    """

    objects: list[Removed]
    freed: int = 0
    volumes: list[Removed] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class DiskUsage:
    """Bytes: of all layers, and by id or name of what containers wrote and of volumes."""

    images: list[Image]
    layers: int
    containers: dict[str, int]
    volumes: dict[str, int]
