"""Options of ``--cache-from`` and ``--cache-to``: where caches are, and how they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument, Unimplemented
from ketch.storage.archive.packing import GZIP, Compression, compression

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = ("inline", "registry", "local")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class CacheImport(msgspec.Struct, frozen=True, kw_only=True):
    """A cache to be read: an image's name in a registry, or a tag or a digest within a directory."""

    kind: str
    reference: str = ""
    tag: str = "latest"
    digest: str = ""


class CacheExport(msgspec.Struct, frozen=True, kw_only=True):
    """A cache to be written.

    ``everything``: with the layers of all steps, not only of those that are part of the result.
    """

    kind: str
    reference: str = ""
    tag: str = "latest"
    everything: bool = False
    image_manifest: bool = True
    oci_types: bool = True
    compression: Compression = Compression()
    force_compression: bool = False
    ignore_error: bool = False


def cache_import(kind: str, attrs: Mapping[str, str]) -> CacheImport:
    """A ``--cache-from`` (InvalidArgument, Unimplemented)."""
    _check_kind(kind, "importer")
    if kind == "inline":
        raise InvalidArgument(
            "inline caches are parts of images and are read as type=registry", hint="write type=registry,ref=IMAGE"
        )
    return CacheImport(
        kind=kind,
        reference=_reference(kind, attrs),
        tag=attrs.get("tag") or "latest",
        digest=attrs.get("digest", ""),
    )


def cache_export(kind: str, attrs: Mapping[str, str]) -> CacheExport:
    """A ``--cache-to`` (InvalidArgument, Unimplemented)."""
    _check_kind(kind, "exporter")
    mode = attrs.get("mode") or "min"
    if mode.lower() not in ("min", "max"):
        raise InvalidArgument(f"unsupported cache export mode: {mode}", hint="the modes are min and max")
    oci_types = _switch(attrs, "oci-mediatypes", True)
    found = CacheExport(
        kind=kind,
        reference=_reference(kind, attrs),
        tag=attrs.get("tag") or "latest",
        everything=mode.lower() == "max",
        image_manifest=_switch(attrs, "image-manifest", oci_types),
        oci_types=oci_types,
        compression=compression(attrs.get("compression") or GZIP, attrs.get("compression-level", "")),
        force_compression=_switch(attrs, "force-compression", False),
        ignore_error=_switch(attrs, "ignore-error", False),
    )
    if found.image_manifest and not found.oci_types:
        raise InvalidArgument("invalid configuration, image-manifest=true requires oci-mediatypes=true")
    return found


def _check_kind(kind: str, what: str) -> None:
    if kind not in _KINDS:
        raise Unimplemented(
            f"cache {what} {kind} is not supported",
            hint="caches are exchanged with registries (type=registry), in directories (type=local) and within images "
            "(type=inline)",
        )


def _reference(kind: str, attrs: Mapping[str, str]) -> str:
    found = attrs.get("ref", "")
    if kind == "registry" and not found:
        raise InvalidArgument("ref is required for a cache in a registry", hint="write type=registry,ref=NAME")
    return found


def _switch(attrs: Mapping[str, str], name: str, default: bool) -> bool:
    text = attrs.get(name)
    if text is None:
        return default
    if text not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid non-bool value {text!r} for {name}", hint="it is true or false")
    return text in _TRUE
