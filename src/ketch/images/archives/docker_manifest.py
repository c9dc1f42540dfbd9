"""``manifest.json`` of the archives of ``docker save``: a list of images."""

from __future__ import annotations

import msgspec

from ketch.oci.manifest import Descriptor  # noqa: TC001 - msgspec reads the annotation at run time


class DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """One image: the paths of its configuration and of its layers in the archive, and its names.

    ``layer_sources`` are the layers' descriptors by diff id.
    """

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    layer_sources: dict[str, Descriptor] | None = None
