"""Descriptors, manifests and indexes (image-spec v1.1), with Docker's media types beside OCI's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ketch.errors import InvalidArgument

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"  # and with +gzip, +zstd
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_PLAIN = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset((INDEX, DOCKER_INDEX))
MANIFESTS = frozenset((MANIFEST, DOCKER_MANIFEST))
CONFIGS = frozenset((CONFIG, DOCKER_CONFIG))


class Platform(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The platform of an image."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)


class Descriptor(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Media type, digest and size (bytes) of a blob; ``urls`` are where a foreign layer is, beside the registry."""

    media_type: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    def check_size(self, actual: int) -> None:
        """Raise InvalidArgument for a blob that has not the descriptor's size."""
        if actual != self.size:
            raise InvalidArgument(
                f"{self.digest}: its descriptor says {self.size} bytes, it has {actual}",
                hint="the image was put together wrongly; have it made again",
            )


class Manifest(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """One image for one platform."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 2
    media_type: str | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Several manifests; also the root of an image-layout."""

    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str | None = None
    annotations: dict[str, str] | None = None


def encode(value: Any) -> bytes:
    """JSON, with ``schemaVersion`` first even though it is a default, and maps in the order of their names."""
    builtins = msgspec.to_builtins(value, order="deterministic")
    if isinstance(value, Manifest | Index):
        builtins = {"schemaVersion": 2, **builtins}
    return msgspec.json.encode(builtins)
