"""Layers whose files are of no later time than an epoch (SOURCE_DATE_EPOCH), so that builds give the same digests."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch import trees
from ketch.storage.archive.layer import is_whiteout
from ketch.storage.layers.draft import BuiltLayerDraft
from ketch.storage.snapshots import layer_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


def rewritten(store: ImageStore, lease: Lease, layer: str, epoch: int) -> str:
    """A layer with the same files, whose times are ``epoch`` (s) where they were later; the same one if none was.

    Blocking; the lease holds it.  It is a copy, for files that have one inode in several layers have one time.
    DataLoss: the layer is gone.
    """
    [directory] = store.layers.directories([layer])
    latest = epoch * 1_000_000_000
    fd = os.open(directory, trees.DIRECTORY)
    try:
        with trees.Descent(fd) as at:
            if next(_later(at, latest), None) is None:
                return layer
        draft = BuiltLayerDraft(store.layers, lease)
        try:
            layer_copy.copy(fd, draft.directory)
            _set_back(draft.directory, latest)
            return draft.commit()
        except BaseException:
            draft.abort()
            raise
    finally:
        os.close(fd)


def _later(at: trees.Descent, latest: int) -> Iterator[str]:
    """The names of later entries, with the walk in their directory.

    Whiteouts have no time of their own.
    """
    for name in at.walk():
        if name is None:
            continue
        status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
        if status.st_mtime_ns > latest and not is_whiteout(status):
            yield name
        if stat.S_ISDIR(status.st_mode):
            at.enter(name)


def _set_back(directory: str, latest: int) -> None:
    fd = os.open(directory, trees.DIRECTORY)
    try:
        with trees.Descent(fd) as at:
            for name in _later(at, latest):
                os.utime(name, ns=(latest, latest), dir_fd=at.fd, follow_symlinks=False)
    finally:
        os.close(fd)
