"""Layers copied over one another into one tree, as overlay would show them."""

from __future__ import annotations

import os
import stat

from ketch import trees
from ketch.linux.openat2 import open_unmounted
from ketch.storage.archive.layer import is_opaque, is_whiteout
from ketch.storage.tree_copy import Copier


class LayerCopier(Copier):
    """A copier of whole layers, lowest first: what is whited out goes, and directories are merged."""

    def _make_way(self, source_fd: int, name: str, target_fd: int) -> bool:
        """Remove what a layer's entry hides, before it is copied; False for a whiteout, which is not copied."""
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        over = _mode(target_fd, name)
        if over and not (stat.S_ISDIR(over) and stat.S_ISDIR(status.st_mode)):
            trees.remove(target_fd, name, open_unmounted)
        return not is_whiteout(status)

    def _make_directory(self, source_fd: int, name: str, target_fd: int) -> None:
        if is_opaque(source_fd):
            trees.remove(target_fd, name, open_unmounted)
        try:
            os.mkdir(name, 0o700, dir_fd=target_fd)
        except FileExistsError:  # of a lower layer
            return


def _mode(directory_fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
