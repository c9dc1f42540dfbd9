"""Layers without opaque directories, which mean the same upon any tree: what they hide is named.

A layer is made upon others, and an opaque directory in it hides whatever lies below.  Upon another tree it would hide
that one's files, too, of which its maker knew nothing; overlay even marks directories so that replace nothing.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import EMLINK, EPERM, EXDEV
from typing import TYPE_CHECKING

from ketch import trees
from ketch.storage.archive.layer import is_opaque
from ketch.storage.drafts.metadata import of_directory
from ketch.storage.drafts.stack import opened
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.storage.drafts.stack import StackDescent

_REFUSED = (EMLINK, EPERM, EXDEV)


def has_opaque(directory: str, check: Callable[[], None] = lambda: None) -> bool:
    """Whether any directory of a layer is opaque."""
    root_fd = os.open(directory, trees.DIRECTORY)
    try:
        with trees.Descent(root_fd) as at:
            for name in at.walk(_directories):
                check()
                if name is None:
                    continue
                at.enter(name)
                if is_opaque(at.fd):
                    return True
    finally:
        os.close(root_fd)
    return False


def _directories(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def write(layer: str, below: Sequence[str], upper: str, check: Callable[[], None] = lambda: None) -> None:
    """Write a layer's directory again without opaque ones, as hard links, to an empty directory.

    ``below``: the directories of the layers that it was made upon, lowest first.
    """
    source_fd = os.open(layer, trees.DIRECTORY)
    upper_fd = -1
    try:
        upper_fd = os.open(upper, trees.DIRECTORY)
        with opened(below) as stack, stack.walk() as under:
            _Writer(upper_fd, check).run(source_fd, under)
    finally:
        os.close(source_fd)
        if upper_fd >= 0:
            os.close(upper_fd)


class _Writer:
    def __init__(self, upper_fd: int, check: Callable[[], None]) -> None:
        self._upper_fd, self._check = upper_fd, check
        self._copier = Copier(upper_fd, check)

    def run(self, source_fd: int, under: StackDescent) -> None:
        hiding = [False]  # whether each directory on the way, or one above it, is opaque
        with trees.Descent(source_fd) as source, trees.Descent(self._upper_fd) as target:
            for name in source.walk():
                self._check()
                if name is None:
                    of_directory(source.fd).set_on(target.fd)
                    target.leave()
                    under.leave()
                    hiding.pop()
                elif stat.S_ISDIR(os.stat(name, dir_fd=source.fd, follow_symlinks=False).st_mode):
                    source.enter(name)
                    under.enter(name)
                    os.mkdir(name, 0o700, dir_fd=target.fd)
                    target.enter(name)
                    hiding.append(hiding[-1] or is_opaque(source.fd))
                    if hiding[-1]:
                        _hide(source.fd, under, target.fd)
                else:
                    self._link(source.fd, name, target)
            of_directory(source_fd).set_on(self._upper_fd)

    def _link(self, source_fd: int, name: str, target: trees.Descent) -> None:
        try:
            os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target.fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _REFUSED:
                raise
            self._copier.entry(source_fd, name, target.fd, target.prefix + name)


def _hide(source_fd: int, under: StackDescent, target_fd: int) -> None:
    """Name everything that an opaque directory hides."""
    own = set(os.listdir(source_fd))
    for name, _ in under.entries():
        if name not in own and under.find(name):
            with suppress(FileExistsError):
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=target_fd)
