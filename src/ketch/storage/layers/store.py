"""Layers: those of images by chain id, and those that were made here.

layers/<chain id's digits>/diff      the files of one layer, unpacked from a blob
layers/<chain id's digits>           or a relative link to the layer that it is: made here, or part of another stack
layers/built-<random>/diff           the files of a layer that was made here
layers/.new-<random>/                being unpacked or written; removed when found at a start

A layer's directory is in the form of an overlay's upper directory and never changes, so it means the same on whatever
it lies, and is in several stacks at once.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from errno import EEXIST, EINVAL, ENOENT, ENOTEMPTY
from typing import TYPE_CHECKING

from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.linux.filesystems import fsflags
from ketch.storage import ownership, removal
from ketch.storage.archive.extract import extract
from ketch.storage.layers.kept_tars import KeptTars
from ketch.storage.lost import is_ours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.storage.archive.tar import Source


BUILT = "built-"
_BUILT_NAME = re.compile(r"built-[0-9a-f]{32}\Z")
_FILES, _WORK = "diff", "work"


def built_name() -> str:
    """A new id for a layer that is made here."""
    return BUILT + secrets.token_hex(16)


class Layers:
    """The directory of layers; an id is a chain id, or the name of a layer that was made here."""

    def __init__(self, data_root: str) -> None:
        self._root = os.path.join(data_root, "layers")
        os.makedirs(self._root, mode=0o710, exist_ok=True)
        fsflags.spread(self._root)
        self.kept_tars = KeptTars(self._root, is_built)

    def path(self, layer: str) -> str:
        """The path of a layer's place, a directory or a link to one."""
        return os.path.join(self._root, layer.removeprefix("sha256:"))

    def diff(self, layer: str) -> str:
        """The directory with a layer's files."""
        return os.path.join(self._root, layer.removeprefix("sha256:"), _FILES)

    def exists(self, layer: str) -> bool:
        """Whether a layer is here."""
        return os.path.isdir(self.diff(layer))

    def directories(self, layers: Sequence[str]) -> list[str]:
        """The directories of a stack of layers, lowest first; DataLoss when one is missing.

        Of a layer that is in it several times only the topmost place counts: it has whatever it hides below, and
        overlay takes no directory twice.
        """
        found: dict[tuple[int, int], str] = {}
        for layer in layers:
            path = self.diff(layer)
            try:
                status = os.stat(path)
            except OSError as e:
                raise DataLoss(
                    f"a layer of the image is missing: there is no `{path}`", hint="pull, load or build it again"
                ) from e
            found.pop((status.st_dev, status.st_ino), None)
            found[status.st_dev, status.st_ino] = path
        return list(found.values())

    def begin(self) -> str:
        """A fresh directory for a layer; ``commit``, ``commit_built`` or ``abort`` it."""
        path = os.path.join(self._root, f".new-{secrets.token_hex(8)}")
        os.makedirs(os.path.join(path, _FILES), mode=0o755)
        os.chmod(os.path.join(path, _FILES), 0o755)
        return path

    @staticmethod
    def files(path: str) -> str:
        """The directory for the files of a layer from ``begin``."""
        return os.path.join(path, _FILES)

    @staticmethod
    def work(path: str) -> str:
        """A directory beside the files of a layer from ``begin``, for an overlay's work; it goes with ``commit``."""
        path = os.path.join(path, _WORK)
        os.makedirs(path, mode=0o755, exist_ok=True)
        return path

    @staticmethod
    def unpack(path: str, source: Source) -> int:
        """Unpack a plain tar into a directory from ``begin``; returns the bytes of its files."""
        return extract(source, Layers.files(path))

    def commit(self, path: str, chain_id: str) -> None:
        """Give an unpacked layer its name; an existing one stays.

        Durable with the next ``ContentStore.sync``; one that no image names by then is deleted at the next start.
        """
        target = self.path(chain_id)
        failpoint("image.layer-unpacked")
        try:
            _rename(path, target)
            failpoint("image.layer-named")
        except OSError as e:
            if e.errno not in (ENOTEMPTY, EEXIST):
                raise
            removal.remove_tree(path)

    def commit_built(self, path: str, name: str) -> None:
        """Give a layer that was written here its name (of `built_name`), which a lease holds already.

        Its root gets the owner and the mode of every layer's: a tar of the layer does not have them.
        """
        files = Layers.files(path)
        removal.remove_tree(os.path.join(path, _WORK))
        ownership.give(files, 0, 0)
        os.chmod(files, 0o755)
        failpoint("layer.built")
        os.rename(path, self.path(name))
        failpoint("layer.built-named")

    def link(self, chain_id: str, layer: str) -> None:
        """Make a layer that is here the layer of a chain id as well; an existing one stays."""
        path, name = self.path(chain_id), self.path(self.target(layer) or layer)
        if os.path.basename(name) == os.path.basename(path):
            return
        try:
            os.symlink(os.path.basename(name), path)
        except FileExistsError:
            if self.exists(chain_id):
                return
            new = os.path.join(self._root, f".new-{secrets.token_hex(8)}")
            os.symlink(os.path.basename(name), new)
            os.rename(new, path)  # what it led to is gone
        failpoint("layer.linked")

    def target(self, layer: str) -> str | None:
        """The id of the layer that a link leads to; None for what is no link."""
        try:
            return _id(os.readlink(self.path(layer)))
        except OSError as e:
            if e.errno not in (EINVAL, ENOENT):
                raise
            return None

    def unlink(self, layer: str) -> str | None:
        """Remove a link; returns the id of the layer that it led to, None for what is no link."""
        target = self.target(layer)
        if target is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.path(layer))
        return target

    def links(self) -> dict[str, str]:
        """The links: chain id → the id of the layer that it leads to; none where the whole directory is gone."""
        found: dict[str, str] = {}
        try:
            with os.scandir(self._root) as entries:
                names = [entry.name for entry in entries if entry.is_symlink() and is_ours(entry.name)]
        except FileNotFoundError:
            return found
        for name in names:
            with suppress(FileNotFoundError):  # it is being removed
                found[_id(name)] = _id(os.readlink(os.path.join(self._root, name)))
        return found

    @staticmethod
    def abort(path: str) -> None:
        """Remove an unpacked directory; a failure is retried at the next start."""
        removal.try_to_remove(path)

    def unfinished(self) -> list[str]:
        """The directories of interrupted work and removals, for ``abort`` at a start."""
        return removal.those(self._root, lambda name: name.startswith(".new-"))

    def detach(self, layer: str) -> str | None:
        """Remove a layer's name; returns the directory for ``abort``, which takes longer."""
        aside = os.path.join(self._root, f".new-{secrets.token_hex(8)}")
        try:
            os.rename(self.path(layer), aside)
        except FileNotFoundError:
            return None
        return aside

    def reopen(self, layer: str) -> str | None:
        """Remove a layer's name, and all that was noted of it; returns the directory, as ``begin`` does."""
        path = self.detach(layer)
        if path is not None:
            for name in os.listdir(path):
                if name != _FILES:
                    removal.remove_tree(os.path.join(path, name))
        return path

    def all(self) -> list[str]:
        """The ids of all layers."""
        return [_id(name) for name in os.listdir(self._root) if is_ours(name) or is_built(name)]


def is_built(name: str) -> bool:
    """Whether a name has the form of those of layers that were made here."""
    return bool(_BUILT_NAME.match(name))


def _id(name: str) -> str:
    """The id of the layer at a place of this name."""
    return name if name.startswith(BUILT) else "sha256:" + name


def _rename(path: str, target: str) -> None:
    """Rename a directory to a name that nothing has; a link that leads nowhere is replaced."""
    try:
        os.rename(path, target)
    except NotADirectoryError:
        if os.path.isdir(target):
            raise OSError(EEXIST, os.strerror(EEXIST), target) from None
        os.unlink(target)
        os.rename(path, target)
