"""Containers' writable snapshots over unpacked layers, as overlay mounts that the runtime carries out.

    containers/<id>/upper, work          active: what a container writes

Nothing is mounted here: a snapshot is described as a list of mounts.
"""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypedDict

from ketch import trees
from ketch.errors import InvalidArgument
from ketch.linux.ns import LIMITED
from ketch.storage import sizes
from ketch.storage.layers.store import Layers
from ketch.storage.removal import remove_tree
from ketch.storage.snapshots import diff, volatile
from ketch.storage.snapshots.quota import Quotas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager


class SnapshotMount(TypedDict):
    """A mount of a snapshot's root, as OCI describes one, but for its destination."""

    type: str
    source: str
    options: list[str]


Mounts = list[SnapshotMount]


MAX_DEPTH = 128


class Snapshots(Protocol):
    """The interface of storage drivers, which make containers' writable roots."""

    @property
    def name(self) -> str:
        """The driver's name as Docker's API has it."""

    @property
    def copies(self) -> bool:
        """Whether a root may be a copy of its image, which takes a while to make."""

    @property
    def warnings(self) -> list[str]:
        """Warnings of ``docker info``."""

    def driver(self, container_id: str) -> str:
        """The name of the driver that has the container."""

    def check_limit(self, size: int) -> None:
        """Raise InvalidArgument when the driver cannot limit a container to so many bytes (0: no limit)."""

    def prepare(self, container_id: str, chain_ids: Sequence[str], size: int = 0, mapped: bool = False) -> Mounts:
        """Make an active snapshot over these layers (lowest first) and describe it; ``size`` bytes at most.

        ``mapped``: it is to be seen through the mapping of a user namespace.
        """

    def exists(self, container_id: str) -> bool:
        """Whether the active snapshot exists."""

    def is_blank(self, container_id: str) -> bool:
        """Whether nothing was ever written to the container's directory."""

    def mounts(self, container_id: str, chain_ids: Sequence[str], readonly: bool = False) -> Mounts:
        """The mounts of the container's root."""

    def view(self, chain_ids: Sequence[str]) -> list[str]:
        """Options of `runtime.rootfs.overlay.open_overlay` for a read-only view of these layers."""

    def upper(self, container_id: str) -> str:
        """The directory that a container writes to."""

    def delta(self, container_id: str) -> AbstractContextManager[str]:
        """A directory with the container's changes, in overlay's form."""

    def usage(self, container_id: str) -> int:
        """Bytes of the files that the container has written."""

    def remove(self, container_id: str) -> None:
        """Delete the snapshot; one that is gone is no error."""

    def status(self) -> list[list[str]]:
        """The driver's rows of ``docker info``."""

    def close(self) -> None:
        """End what serves roots when the daemon ends; those of running containers go on."""


def check_depth(count: int) -> None:
    """Raise InvalidArgument, in Docker's words, for an image with too many layers."""
    if count > MAX_DEPTH:
        raise InvalidArgument("max depth exceeded", hint=f"an image can have {MAX_DEPTH} layers; squash some of them")


class OverlaySnapshots:
    """The overlay driver: containers' writable roots as overlay mounts."""

    name, copies = "overlay2", False

    def __init__(self, data_root: str, *, volatile: bool = False) -> None:
        self._containers = os.path.join(data_root, "containers")
        self._volatile = volatile
        self._layers = Layers(data_root)
        self.warnings: list[str] = []
        os.makedirs(self._containers, mode=0o710, exist_ok=True)

    def driver(self, container_id: str) -> str:
        """The name of the driver, whatever the container."""
        del container_id
        return self.name

    def check_limit(self, size: int) -> None:
        """Raise InvalidArgument when this file system cannot limit a container to so many bytes (0: no limit)."""
        if size:
            Quotas(self._containers).check()

    def prepare(self, container_id: str, chain_ids: Sequence[str], size: int = 0, mapped: bool = False) -> Mounts:
        """Make an active snapshot over these layers (lowest first) and describe it; ``size`` bytes at most."""
        del mapped
        check_depth(len(chain_ids))
        self._layers.directories(chain_ids)
        directory = os.path.join(self._containers, container_id)
        os.makedirs(directory, mode=0o710, exist_ok=True)
        for name in ("upper", "work"):  # every user may enter the root, whatever the image says of it: as on overlay2
            os.makedirs(os.path.join(directory, name), mode=0o755, exist_ok=True)
        if size:
            Quotas(self._containers).limit([os.path.join(directory, name) for name in ("upper", "work")], size)
        return self.mounts(container_id, chain_ids)

    def exists(self, container_id: str) -> bool:
        """Whether the active snapshot exists."""
        return all(os.path.isdir(os.path.join(self._containers, container_id, name)) for name in ("upper", "work"))

    def is_blank(self, container_id: str) -> bool:
        """Whether the snapshot is as `prepare` makes it."""
        directory = os.path.join(self._containers, container_id)
        if not set(os.listdir(directory)) <= {"upper", "work"}:
            return False
        return not os.path.isdir(self.upper(container_id)) or not os.listdir(self.upper(container_id))

    def mounts(self, container_id: str, chain_ids: Sequence[str], readonly: bool = False) -> Mounts:
        """The mounts of the container's root (DataLoss: a layer is missing)."""
        lowers = self._layers.directories(chain_ids)[::-1]
        directory = os.path.join(self._containers, container_id)
        upper = os.path.join(directory, "upper")
        if readonly:
            return [{"type": "overlay", "source": "overlay", "options": [_lowerdir([upper, *lowers])]}]
        if not lowers:  # an image from scratch: overlay wants at least one lower directory
            return [{"type": "bind", "source": upper, "options": []}]
        options = [_lowerdir(lowers), f"upperdir={upper}", f"workdir={directory}/work", *_plain()]
        volatile.make_mountable(directory)
        if self._volatile:
            volatile.begin(directory)
            options.append("volatile")
        return [{"type": "overlay", "source": "overlay", "options": options}]

    def view(self, chain_ids: Sequence[str]) -> list[str]:
        """Overlay options for a read-only view of these layers."""
        return [_lowerdir(self._layers.directories(chain_ids)[::-1]), "ro"]

    def upper(self, container_id: str) -> str:
        """The directory with the container's writes, in overlay's own form."""
        return os.path.join(self._containers, container_id, "upper")

    @contextmanager
    def delta(self, container_id: str) -> Iterator[str]:
        """The upper directory, which has the container's changes."""
        yield self.upper(container_id)

    def status(self) -> list[list[str]]:
        """Rows of ``docker info`` as overlay2 has them."""
        return [
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "true" if LIMITED else "false"],
        ]

    def usage(self, container_id: str) -> int:
        """Bytes of the files that the container has written; one with several names counts once."""
        upper = self.upper(container_id)
        written = sizes.written_bytes(upper)
        try:
            upper_fd = os.open(upper, trees.DIRECTORY)
        except FileNotFoundError:  # it is being removed
            return written
        try:
            return written - diff.bytes_made(upper_fd)
        finally:
            os.close(upper_fd)

    def close(self) -> None:
        """Nothing serves roots."""

    def remove(self, container_id: str) -> None:
        """Delete the snapshot; one that is gone is no error."""
        if os.path.isdir(self.upper(container_id)):
            Quotas(self._containers).release(self.upper(container_id))
        for name in ("upper", "work"):
            remove_tree(os.path.join(self._containers, container_id, name))


@functools.cache
def _plain() -> list[str]:
    """Options that keep an upper directory self-contained, whatever this kernel's defaults.

    With redirect_dir or metacopy a file's content may lie in a lower layer under another name (Linux,
    filesystems/overlayfs.rst): such a directory is no layer.  ``index`` refuses a mount while another one ends.
    """
    result = []
    for name in ("redirect_dir", "metacopy", "index"):
        try:
            with open(f"/sys/module/overlay/parameters/{name}", encoding="ascii") as f:
                if f.read().strip() in ("Y", "on"):
                    result.append(f"{name}=off")
        except FileNotFoundError:  # a kernel without it, or overlay not loaded yet
            continue
    return result


def _lowerdir(paths: Sequence[str]) -> str:
    """Overlay's option for these directories, topmost first."""
    return "lowerdir=" + ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in paths)
