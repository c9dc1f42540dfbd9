"""The choice of one platform's image behind a reference: its manifest, configuration and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ketch.errors import InvalidArgument, NotFound
from ketch.images.transfer.layers import Layer
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.oci import platform as platforms
from ketch.oci.config import decode as decode_config
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform
    from ketch.oci.reference import Reference
    from ketch.remote.repository import Fetched

LARGEST_CONFIG = 8 << 20
_DEPTH = 3


class Manifests(Protocol):
    """One who has manifests: a repository, a directory."""

    async def manifest(self, ref: str, /) -> Fetched:
        """A manifest by its digest, verified (KetchError)."""
        ...


async def choose(
    repository: Manifests,
    top: Fetched,
    wanted: Platform | None,
    ref: Reference,
    seen: Callable[[Fetched], Awaitable[None]],
) -> Fetched:
    """The manifest for a platform, by default this machine's; indexes in indexes are followed.

    ``seen`` gets each manifest that is fetched (NotFound: there is none for the platform; InvalidArgument).
    """
    found = top
    for _ in range(_DEPTH):
        if found.descriptor.media_type not in oci.INDEXES:
            return found
        descriptor = _for_platform(_decoded(found.data, oci.Index, found), wanted)
        if descriptor is None:
            text = platforms.text(wanted or platforms.host())
            raise NotFound(
                f"no matching manifest for {text} in the manifest list entries",
                hint=f"see what `{ref.familiar}` has with: ketch manifest inspect",
            )
        found = await repository.manifest(digests.check(descriptor.digest))
        descriptor.check_size(found.descriptor.size)
        await seen(found)
    raise InvalidArgument(f"pull {ref.familiar}: indexes are nested too deeply")


def image_manifest(fetched: Fetched, ref: Reference) -> oci.Manifest:
    """The manifest of an image that can be run (InvalidArgument: it is something else, or broken)."""
    manifest: oci.Manifest = _decoded(fetched.data, oci.Manifest, fetched)
    if manifest.config.media_type not in oci.CONFIGS:
        raise InvalidArgument(
            f"pull {ref.familiar}: unsupported media type {manifest.config.media_type}",
            hint="it is an artifact of another kind, not an image that can be run",
        )
    for blob in (*manifest.layers, manifest.config):
        digests.check(blob.digest)
    if manifest.config.size > LARGEST_CONFIG:
        raise InvalidArgument(f"image configuration {manifest.config.digest}: larger than {LARGEST_CONFIG} bytes")
    return manifest


def image_config(data: bytes, digest: str) -> ImageConfig:
    """A configuration of an image for Linux (InvalidArgument)."""
    config: ImageConfig = _decode(decode_config, data, f"image configuration {digest}")
    for diff_id in config.rootfs.diff_ids:
        digests.check(diff_id)
    if config.os != "linux":
        raise InvalidArgument(f'image operating system "{config.os}" cannot be used on this platform')
    return config


def image_layers(manifest: oci.Manifest, config: ImageConfig, ref: Reference) -> list[Layer]:
    """The layers by manifest and configuration, which must agree (InvalidArgument)."""
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidArgument(
            f"pull {ref.familiar}: the image has {len(diff_ids)} layers, its manifest {len(manifest.layers)}"
        )
    check_depth(len(diff_ids))
    chains = digests.chain_ids(diff_ids)
    return [Layer(*parts) for parts in zip(manifest.layers, diff_ids, chains, strict=True)]


def _for_platform(index: oci.Index, wanted: Platform | None) -> oci.Descriptor | None:
    images = [d for d in index.manifests if d.media_type in oci.MANIFESTS or d.media_type in oci.INDEXES]
    if wanted is not None:
        exact = [d for d in images if d.platform is not None and platforms.matches(wanted, d.platform)]
        if exact:
            return exact[0]
        if not wanted.architecture:
            return None
    best = platforms.best(wanted or platforms.host(), [d.platform for d in images])
    return None if best is None else images[best]


def _decoded(data: bytes, kind: Any, fetched: Fetched) -> Any:
    return _decode(lambda text: msgspec.json.decode(text, type=kind), data, f"manifest {fetched.descriptor.digest}")


def _decode(decode: Callable[[bytes], Any], data: bytes, what: str) -> Any:
    """Decoded JSON (InvalidArgument, beginning with ``what``)."""
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"{what}: {e}") from e
    except RecursionError as e:
        raise InvalidArgument(f"{what}: it is nested too deeply") from e
