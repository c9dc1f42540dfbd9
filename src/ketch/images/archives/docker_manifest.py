"""``manifest.json`` of the archives of ``docker save``: a list of images."""

from __future__ import annotations

import msgspec


class DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """One image: the paths of its configuration and of its layers in the archive, and its names."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
