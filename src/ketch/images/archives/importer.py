"""``import``: a root filesystem's tar becomes an image of one layer."""

from __future__ import annotations

import io
import platform as machine
import time
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

from ketch.images.assembly import descriptor_of, encode_config, make_image, write_manifest
from ketch.images.unpack import receive_layer
from ketch.notation import architectures, times
from ketch.oci import reference
from ketch.oci.config import History, ImageConfig, RootFS, RunConfig
from ketch.storage.archive import compression

if TYPE_CHECKING:
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.oci.manifest import Platform
    from ketch.storage.archive.tar import Source

_NO_FILES = bytes(1024)  # the mark at the end of a tar


def architecture() -> str:
    """This machine's architecture by its OCI name."""
    return architectures.goarch(machine.machine())


class Said(NamedTuple):
    """A description of a root filesystem: how it was made, and its platform (None: this machine's)."""

    step: History = History()
    platform: Platform | None = None


def import_rootfs(
    store: ImageStore,
    source: IO[bytes],
    *,
    name: str = "",
    config: RunConfig | None = None,
    said: Said | None = None,
    progress: Report = lambda _item: None,
) -> Image:
    """Make an image of a root filesystem's tar, and name it; a failure leaves nothing.

    Nothing at all is a root without files.
    """
    names = [str(reference.parse(name))] if name else []
    step, platform = said or Said()
    with store.lease() as lease:
        body = compression.Peekable(source)
        tar: Source = body if body.peek(1) else io.BytesIO(_NO_FILES)
        blob, diff_id, size = receive_layer(store, lease, tar, "archive")
        created = step.created or times.fixed(time.time_ns())
        image = ImageConfig(
            architecture=platform.architecture if platform and platform.architecture else architecture(),
            os="linux",
            variant=platform.variant if platform else None,
            created=created,
            config=config or RunConfig(),
            rootfs=RootFS(diff_ids=[diff_id]),
            history=[msgspec.structs.replace(step, created=created, comment=step.comment or "Imported from -")],
        )
        image_id = store.content.put(encode_config(image), hold=lease.hold, durable=False)
        manifest = write_manifest(store.content, lease, image_id, [descriptor_of(store.content, blob)])
        made = make_image(image_id, manifest, image, [blob], [size])
        made.last_tagged = time.time_ns() if names else 0
        return store.add([(made, names)])[0]
