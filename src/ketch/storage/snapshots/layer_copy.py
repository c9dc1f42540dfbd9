"""Copies of upper directories as layers, in overlay's own form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch import trees
from ketch.storage.archive.layer import is_opaque
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Set


def copy(upper_fd: int, directory: str, left_out: Set[str] = frozenset()) -> None:
    """Copy what an open upper directory has to an empty directory, but for paths such as ``/etc/hosts``."""
    target_fd = os.open(directory, trees.DIRECTORY)
    try:
        _UpperCopier(target_fd, left_out).content(upper_fd)
    finally:
        os.close(target_fd)


class _UpperCopier(Copier):
    def __init__(self, target_fd: int, left_out: Set[str]) -> None:
        super().__init__(target_fd)
        self._left_out = left_out

    def _entry(self, source: trees.Descent, name: str, target: trees.Descent, prefix: str) -> None:
        if not self._left_out or f"/{source.prefix}{name}" not in self._left_out:
            super()._entry(source, name, target, prefix)

    def _directory(self, source: trees.Descent, name: str, target: trees.Descent) -> None:
        super()._directory(source, name, target)
        if is_opaque(source.fd):
            os.setxattr(target.fd, "trusted.overlay.opaque", b"y")
