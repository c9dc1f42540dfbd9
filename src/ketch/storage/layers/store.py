"""Unpacked layers by chain id.

layers/<chain id's digits>/diff      committed: the files of one layer
layers/.new-<random>/                being unpacked; removed when found at a start
"""

from __future__ import annotations

import os
import secrets
from errno import EEXIST, ENOTEMPTY
from typing import TYPE_CHECKING

from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.linux import fsflags
from ketch.storage import removal
from ketch.storage.archive.extract import extract
from ketch.storage.lost import is_ours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.storage.archive.tar import Source


class Layers:
    """Unpacked layers by chain id."""

    def __init__(self, data_root: str) -> None:
        self._root = os.path.join(data_root, "layers")
        os.makedirs(self._root, mode=0o710, exist_ok=True)
        fsflags.spread(self._root)

    def diff(self, chain_id: str) -> str:
        """The directory with a layer's files."""
        return os.path.join(self._root, chain_id.removeprefix("sha256:"), "diff")

    def exists(self, chain_id: str) -> bool:
        """Whether a layer is unpacked."""
        return os.path.isdir(self.diff(chain_id))

    def directories(self, chain_ids: Sequence[str]) -> list[str]:
        """The directories of an image's layers, lowest first; DataLoss when one is missing."""
        found = [self.diff(chain) for chain in chain_ids]
        for path in found:
            if not os.path.isdir(path):
                raise DataLoss(f"a layer of the image is missing: there is no `{path}`", hint="pull or load it again")
        return found

    def begin(self) -> str:
        """A fresh directory for ``unpack``; ``commit`` or ``abort`` it."""
        path = os.path.join(self._root, f".new-{secrets.token_hex(8)}")
        os.makedirs(os.path.join(path, "diff"), mode=0o755)
        os.chmod(os.path.join(path, "diff"), 0o755)
        return path

    @staticmethod
    def files(path: str) -> str:
        """The directory for the files of a layer from ``begin``."""
        return os.path.join(path, "diff")

    @staticmethod
    def unpack(path: str, source: Source) -> int:
        """Unpack a plain tar into a directory from ``begin``; returns the bytes of its files."""
        return extract(source, Layers.files(path))

    def commit(self, path: str, chain_id: str) -> None:
        """Give an unpacked layer its name; an existing one stays.

        Durable with the next ``ContentStore.sync``; one that no image names by then is deleted at the next start.
        """
        target = os.path.join(self._root, chain_id.removeprefix("sha256:"))
        failpoint("image.layer-unpacked")
        try:
            os.rename(path, target)
            failpoint("image.layer-named")
        except OSError as e:
            if e.errno not in (ENOTEMPTY, EEXIST):
                raise
            removal.remove_tree(path)

    @staticmethod
    def abort(path: str) -> None:
        """Remove an unpacked directory; a failure is retried at the next start."""
        removal.try_to_remove(path)

    def unfinished(self) -> list[str]:
        """The directories of interrupted work and removals, for ``abort`` at a start."""
        return removal.those(self._root, lambda name: name.startswith(".new-"))

    def detach(self, chain_id: str) -> str | None:
        """Remove a layer's name; returns the directory for ``abort``, which takes longer."""
        aside = os.path.join(self._root, f".new-{secrets.token_hex(8)}")
        try:
            os.rename(os.path.join(self._root, chain_id.removeprefix("sha256:")), aside)
        except FileNotFoundError:
            return None
        return aside

    def all(self) -> list[str]:
        """Chain ids of the unpacked layers."""
        return ["sha256:" + n for n in os.listdir(self._root) if is_ours(n)]
