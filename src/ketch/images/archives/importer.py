"""``import``: a root filesystem's tar becomes an image of one layer."""

from __future__ import annotations

import platform
import time
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.images import changes as change
from ketch.images.model import Image
from ketch.images.unpack import receive_layer
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.oci.config import History, ImageConfig, RootFS, RunConfig, format_time, parse_time
from ketch.oci.digest import chain_ids
from ketch.storage.archive.compression import kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture in OCI's words."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def import_rootfs(
    store: ImageStore,
    source: IO[bytes],
    *,
    repo: str = "",
    tag: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    created_ns: int | None = None,
    created_by: str = "",
    progress: Callable[[dict[str, Any]], None] = lambda _item: None,
) -> Image:
    """Read, unpack and name it; nothing stays when any of it fails."""
    names = [str(reference.parse(f"{repo}:{tag}" if tag else repo))] if repo else []
    run = RunConfig()
    change.apply(run, changes)  # bad instructions are refused before anything is read
    with store.lease() as lease:
        blob, diff_id, size = receive_layer(store, lease, source, "archive")
        now = time.time_ns() if created_ns is None else created_ns
        step = History(created=format_time(now), created_by=created_by or None, comment=message or "Imported from -")
        config = ImageConfig(
            architecture=architecture(),
            os="linux",
            created=format_time(now),
            config=run,
            rootfs=RootFS(diff_ids=[diff_id]),
            history=[step],
        )
        image_id = store.content.put(encode_config(config), hold=lease.hold, durable=False)
        manifest = write_manifest(store, lease, image_id, [blob])
        return store.add([(make_image(image_id, manifest, config, [blob], [size]), names)])[0]


def encode_config(config: ImageConfig) -> bytes:
    """The JSON of a configuration that is made here."""
    builtins = msgspec.to_builtins(config)
    builtins["rootfs"] = {"type": "layers", "diff_ids": config.rootfs.diff_ids}  # required even when a default
    return msgspec.json.encode(builtins)


def write_manifest(store: ImageStore, lease: Lease, config: str, blobs: list[str]) -> str:
    """Write the manifest for a configuration and layers that are in place; returns its digest."""
    content = store.content
    layers = [oci.Descriptor(media_type=_media_type(store, b), digest=b, size=content.size(b)) for b in blobs]
    described = oci.Descriptor(media_type=oci.CONFIG, digest=config, size=content.size(config))
    manifest = oci.Manifest(config=described, layers=layers, media_type=oci.MANIFEST)
    return content.put(oci.encode(manifest), hold=lease.hold, durable=False)


def _media_type(store: ImageStore, blob: str) -> str:
    with store.content.open(blob) as f:
        return {"gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}.get(kind(f.read(6)), oci.LAYER)


def make_image(image_id: str, manifest: str, config: ImageConfig, blobs: list[str], sizes: list[int]) -> Image:
    """The record for content that is in place."""
    return Image(
        id=image_id,
        manifest=manifest,
        config=config,
        diff_ids=config.rootfs.diff_ids,
        chain_ids=chain_ids(config.rootfs.diff_ids),
        blobs=blobs,
        layer_sizes=sizes,
        created=parse_time(config.created),
    )
