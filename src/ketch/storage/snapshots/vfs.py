"""The vfs driver: containers' roots as plain copies, for file systems that overlay does not work on.

    layers/<id>/merged-<digest of ids>   layers, this one on top, as one tree; made at first use, goes with
                                         the layer
    containers/<id>/root                 a copy of it that the container writes to
    containers/<id>/base                 link that says of which tree it is a copy

A tree is made under a ``.new-`` name and renamed when it is whole; half of one is removed at the next start.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ketch import trees
from ketch.errors import InvalidArgument
from ketch.failpoints import failpoint
from ketch.storage import removal
from ketch.storage.layers.store import Layers
from ketch.storage.snapshots import diff, tree_diff
from ketch.storage.snapshots.layer_merge import LayerCopier
from ketch.storage.snapshots.overlay import check_depth
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.storage.snapshots.overlay import Mounts

_NEW = ".new-"


class VfsSnapshots:
    """Containers' writable roots as plain copies.  Making one, and a diff, take as long as a copy."""

    name, copies = "vfs", True

    def __init__(
        self,
        data_root: str,
        warnings: Sequence[str] = (),
        later: Callable[[Callable[[], None]], object] = lambda work: work(),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """``later`` runs deletions in the background; what ``check`` raises ends a copy."""
        self.warnings = list(warnings)
        self._later, self._check = later, check
        self._containers = os.path.join(data_root, "containers")
        self._layers = Layers(data_root)
        os.makedirs(self._containers, mode=0o710, exist_ok=True)
        for parent in (self._containers, os.path.join(data_root, "layers")):
            for name in os.listdir(parent):
                for unfinished in _unfinished(os.path.join(parent, name)):
                    later(functools.partial(removal.try_to_remove, unfinished))

    def driver(self, container_id: str) -> str:
        """The name of the driver, whatever the container."""
        del container_id
        return self.name

    def check_limit(self, size: int) -> None:
        """Raise InvalidArgument for any limit: the copy of the image would count against it."""
        if size:
            raise InvalidArgument("--storage-opt size is not supported for vfs", hint="use the overlay driver")

    def prepare(self, container_id: str, chain_ids: Sequence[str], size: int = 0, mapped: bool = False) -> Mounts:
        """Copy these layers (lowest first) for a container and describe the root."""
        del mapped
        check_depth(len(chain_ids))
        self.check_limit(size)
        directory = os.path.join(self._containers, container_id)
        os.makedirs(directory, mode=0o710, exist_ok=True)
        base = os.path.join(directory, "base")
        if not os.path.lexists(base):
            os.symlink(f"{chain_ids[-1]}/{_merged_name(chain_ids)}" if chain_ids else "scratch", base)
        if not os.path.isdir(self.upper(container_id)):
            sources = [self._merged(chain_ids)] if chain_ids else []
            self._make(self.upper(container_id), sources, layer=False)
        return self.mounts(container_id, chain_ids)

    def exists(self, container_id: str) -> bool:
        """Whether the container's copy exists, complete."""
        return os.path.isdir(self.upper(container_id))

    def is_blank(self, container_id: str) -> bool:
        """Whether the copy was never completed (a complete one may have the container's writes)."""
        names = os.listdir(os.path.join(self._containers, container_id))
        return all(name == "base" or name.startswith(_NEW) for name in names)

    def mounts(self, container_id: str, chain_ids: Sequence[str], readonly: bool = False) -> Mounts:
        """The mounts of the container's root."""
        del chain_ids
        return [{"type": "bind", "source": self.upper(container_id), "options": ["ro"] if readonly else []}]

    def view(self, chain_ids: Sequence[str]) -> list[str]:
        """Options for a read-only view of these layers: one directory, without overlay."""
        return ["lowerdir=" + self._merged(chain_ids).replace("\\", "\\\\").replace(":", "\\:"), "ro"]

    def upper(self, container_id: str) -> str:
        """The directory that a container writes to."""
        return os.path.join(self._containers, container_id, "root")

    @contextmanager
    def delta(self, container_id: str) -> Iterator[str]:
        """A temporary directory with the container's changes, in overlay's form."""
        directory = os.path.join(self._containers, container_id, _NEW + secrets.token_hex(8))
        os.mkdir(directory, 0o755)
        try:
            with self._compared(container_id) as (new_fd, old_fd):
                upper_fd = os.open(directory, trees.DIRECTORY)
                try:
                    tree_diff.write_upper(new_fd, old_fd, upper_fd)
                finally:
                    os.close(upper_fd)
            yield directory
        finally:
            removal.remove_tree(directory)

    def usage(self, container_id: str) -> int:
        """Bytes of the files that the container has written; one with several names counts once."""
        try:
            with self._compared(container_id) as (new_fd, old_fd):
                return tree_diff.changed_bytes(new_fd, old_fd) - diff.bytes_made(new_fd, old_fd)
        except FileNotFoundError:  # it is being removed
            return 0

    def remove(self, container_id: str) -> None:
        """Delete the copy; one that is gone is no error."""
        directory = os.path.join(self._containers, container_id)
        if not os.path.isdir(directory):
            return
        for unfinished in _unfinished(directory):
            removal.try_to_remove(unfinished)
        removal.remove_tree(os.path.join(directory, "root"))
        if os.path.lexists(os.path.join(directory, "base")):
            os.unlink(os.path.join(directory, "base"))

    def close(self) -> None:
        """Nothing serves roots."""

    def status(self) -> list[list[str]]:
        """Rows of ``docker info``: Docker's vfs has none."""
        return []

    @contextmanager
    def _compared(self, container_id: str) -> Iterator[tuple[int, int]]:
        base = os.readlink(os.path.join(self._containers, container_id, "base"))
        with ExitStack() as stack:
            new_fd = os.open(self.upper(container_id), trees.DIRECTORY)
            stack.callback(os.close, new_fd)
            old_fd = -1
            if base != "scratch":
                layer, _, name = base.partition("/")
                tree = name or "merged"  # its name when every stack was one of chain ids
                old_fd = os.open(os.path.join(self._layers.path(layer), tree), trees.DIRECTORY)
                stack.callback(os.close, old_fd)
            yield new_fd, old_fd

    def _merged(self, chain_ids: Sequence[str]) -> str:
        diffs = self._layers.directories(chain_ids)
        directory = os.path.join(os.path.dirname(diffs[-1]), _merged_name(chain_ids))
        if not os.path.isdir(directory):
            self._make(directory, diffs, layer=True)
        return directory

    def _make(self, directory: str, sources: Sequence[str], *, layer: bool) -> None:
        """Make a tree of these layers; a concurrent call for the same may win."""
        new = os.path.join(os.path.dirname(directory), _NEW + secrets.token_hex(8))
        os.mkdir(new, 0o755)
        try:
            _fill(new, sources, layer, self._check)
            failpoint("vfs.copied")
            if not os.path.isdir(directory):
                os.rename(new, directory)
                return
        except BaseException:
            self._later(functools.partial(removal.try_to_remove, new))
            raise
        removal.remove_tree(new)


def _merged_name(layers: Sequence[str]) -> str:
    return "merged-" + hashlib.sha256("\n".join(layers).encode()).hexdigest()[:32]


def _fill(new: str, sources: Sequence[str], layer: bool, check: Callable[[], None]) -> None:
    target_fd = os.open(new, trees.DIRECTORY)
    try:
        copier = LayerCopier(target_fd, check) if layer else Copier(target_fd, check)
        for source in sources:
            source_fd = os.open(source, trees.DIRECTORY)
            try:
                copier.tree(source_fd)
            finally:
                os.close(source_fd)
    finally:
        os.close(target_fd)


def _unfinished(directory: str) -> list[str]:
    if os.path.isdir(directory) and not os.path.islink(directory):
        return removal.those(directory, lambda name: name.startswith(_NEW))
    return []
