"""Blobs of images: those in the content store, and plain layers that are made here and have none.

The manifest of an image that is made here names its layers by the digests of their tars.  Such a tar is written when
somebody wants its bytes, from the layer's directory, and compared with its digest.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING

from ketch.errors import DataLoss
from ketch.storage.layers import tars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.layers.tars import TarFacts, Write

_CHUNK = 1 << 20


class ImageBlobs:
    """The blobs of some images, whose content the caller holds.  Blocking."""

    def __init__(self, store: ImageStore, images: Iterable[Image]) -> None:
        self._content, self._layers = store.content, store.layers
        self._chains: dict[str, str] = {}
        for image in images:
            for blobs in (image.blobs, *image.forms.values()):
                parts = zip(blobs, image.diff_ids, image.chain_ids, strict=False)
                self._chains.update({diff_id: chain for blob, diff_id, chain in parts if blob == diff_id})

    def _tar(self, digest: str) -> TarFacts | None:
        """The facts of the tar with that digest, of a layer without a blob; None: there is none."""
        chain = self._chains.get(digest)
        found = tars.known(self._layers, chain) if chain else None
        return found if found is not None and found.diff_id == digest and self._layers.exists(chain or "") else None

    def exists(self, digest: str) -> bool:
        """Whether a blob is here, or can be made."""
        return self._content.exists(digest) or self._tar(digest) is not None

    def size(self, digest: str) -> int:
        """The size of a blob in bytes (NotFound)."""
        if not self._content.exists(digest) and (found := self._tar(digest)) is not None:
            return found.size
        return self._content.size(digest)

    def write(self, digest: str, to: Write) -> None:
        """Write a blob; ``to`` gets buffers that are used again (NotFound, DataLoss: a layer's tar is another)."""
        if self._content.exists(digest) or self._tar(digest) is None:
            with self._content.open(digest) as f:
                while data := f.read(_CHUNK):
                    to(data)
            return
        tars.write(self._layers, self._chains[digest], digest, to)

    def copy(self, digest: str, target: IO[bytes], size: int) -> None:
        """Copy a blob of that size to a file (NotFound, DataLoss)."""
        if not self._content.exists(digest) and self._tar(digest) is not None:
            self.write(digest, target.write)
            return
        with self._content.open(digest) as f:
            _send(f, target, size)

    def open(self, digest: str) -> IO[bytes]:
        """A blob as a file, which the caller closes (NotFound, DataLoss); one that is made has no name."""
        if self._content.exists(digest) or self._tar(digest) is None:
            return self._content.open(digest)
        file = tempfile.TemporaryFile(dir=self._content.ingest_root)  # noqa: SIM115 - the caller closes it
        try:
            self.write(digest, file.write)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


def _send(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy a whole file with sendfile(2), which into a pipe copies no pages."""
    try:
        fd = target.fileno()
    except OSError:  # it is no file of the system's
        while data := source.read(_CHUNK):
            target.write(data)
        return
    target.flush()
    done = 0
    while done < size:
        sent = os.sendfile(fd, source.fileno(), done, size - done)
        if not sent:
            raise DataLoss(f"save: `{source.name}` has become shorter")
        done += sent
