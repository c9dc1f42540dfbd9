"""An engine's stored images and partial downloads on the disk."""

from __future__ import annotations

import os


def files(engine) -> set[str]:
    """Blobs, layers and what is on its way to become one."""
    places = ("content/blobs/sha256", "content/ingest", "layers")
    return {f"{place}/{name}" for place in places for name in os.listdir(os.path.join(engine.data_root, place))}


def parts(engine) -> list[int]:
    """Sizes of the downloads that were broken off."""
    ingest = os.path.join(engine.data_root, "content/ingest")
    return [os.stat(os.path.join(ingest, n)).st_size for n in os.listdir(ingest) if n.endswith(".part")]
