"""A new image from a parent and what a container wrote on top of it."""

from __future__ import annotations

import hashlib
import io
import time
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.errors import InvalidArgument
from ketch.images.assembly import encode_config, make_image, write_manifest
from ketch.images.unpack import unpack_blob
from ketch.notation import times
from ketch.oci import reference
from ketch.oci.config import History, ImageConfig, RootFS
from ketch.oci.digest import chain_ids
from ketch.storage.archive.gzipwriter import GzipWriter
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.oci.config import RunConfig
    from ketch.storage.content.leases import Lease


def commit(
    store: ImageStore,
    parent: Image,
    config: RunConfig,
    write: Callable[[IO[bytes]], int] | None,
    *,
    name: str = "",
    step: History,
) -> Image:
    """Make the image; ``write(file)`` writes the layer's tar and returns the bytes of its files; None: no layer.

    Blocking.  ``name`` is normalized; ``step`` tells how the image was made, but for the time.  Nothing stays when any
    of it fails.
    """
    with store.lease() as lease:
        lease.hold(*parent.parts())
        store.resolve(parent.id)  # it may have gone before it was held (NotFound)
        blobs, diff_ids, sizes = list(parent.blobs), list(parent.diff_ids), list(parent.layer_sizes)
        if write is not None:
            check_depth(len(diff_ids) + 1)
            blob, diff_id, size = _add_layer(store, lease, parent, write)
            blobs.append(blob)
            diff_ids.append(diff_id)
            sizes.append(size)
        now = times.fixed(time.time_ns())
        step = msgspec.structs.replace(step, created=now, empty_layer=write is None)
        full = msgspec.structs.replace(
            parent.config,
            created=now,
            author=step.author,
            comment=step.comment,
            config=config,
            rootfs=RootFS(diff_ids=diff_ids),
            history=[*_past(parent.config), step],
        )
        image_id = store.content.put(encode_config(full), hold=lease.hold, durable=False)
        manifest = write_manifest(store.content, lease, image_id, blobs)
        image = make_image(image_id, manifest, full, blobs, sizes)
        image.parent = parent.id
        image.last_tagged = time.time_ns() if name else 0
        return store.add([(image, [name] if name else [])])[0]


def _past(config: ImageConfig) -> list[History]:
    """The parent's history, with an entry for every layer (as validators require)."""
    past = list(config.history or [])
    told = sum(not step.empty_layer for step in past)
    return [History(created=config.created)] * (len(config.rootfs.diff_ids) - told) + past


def check_name(repo: str, tag: str) -> str:
    """The normalized name for an image, empty when none is given (InvalidArgument)."""
    if not repo:
        return ""
    if tag and not reference.is_tag(tag):
        raise InvalidArgument("invalid tag format")
    parsed = reference.parse(repo)
    if parsed.digest:
        raise InvalidArgument("cannot import digest reference")
    return str(reference.parse(f"{parsed.repository}:{tag}") if tag else parsed)


def _add_layer(
    store: ImageStore, lease: Lease, parent: Image, write: Callable[[IO[bytes]], int]
) -> tuple[str, str, int]:
    """(blob digest, diff id, bytes of files) of a layer that is stored and unpacked on top of the parent's."""
    with store.content.ingest(hold=lease.hold, durable=False) as ingest:
        zipped = GzipWriter(ingest.write)
        plain = _Hashing(zipped.write)
        size = write(plain)  # type: ignore[arg-type]
        zipped.finish()
    diff_id = plain.digest
    chain_id = chain_ids([*parent.diff_ids, diff_id])[-1]
    lease.hold(chain_id)
    if not store.layers.exists(chain_id):
        unpack_blob(store, ingest.digest, diff_id, chain_id)
    return ingest.digest, diff_id, size


class _Hashing(io.RawIOBase):
    """A write-only file that hashes the bytes written."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._write(data)
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of the bytes written so far."""
        return "sha256:" + self._hash.hexdigest()
