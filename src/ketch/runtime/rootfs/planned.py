"""Planned mounts, and the sources of bind mounts as detached trees, on the host or in the container's own root."""

from __future__ import annotations

import os
from stat import S_ISDIR

from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.runtime import user_namespaces
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import idmap, paths
from ketch.runtime.rootfs.mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciIdMapping, OciMount
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.user_namespaces import OpenUserNamespace
    from ketch.storage.tree_copy import Copier


class Planned:
    """One mount to be made; ``tree_fd`` is its open source, or -1 when the file system is made on the spot."""

    __slots__ = (
        "copier",
        "destination",
        "directory",
        "fstype",
        "gids",
        "inside",
        "label",
        "lasting",
        "map_fd",
        "mapper_fd",
        "options",
        "source",
        "tree_fd",
        "uids",
    )

    def __init__(self, entry: OciMount) -> None:
        self.destination: str = os.path.normpath("/" + entry["destination"].lstrip("/"))
        self.source: str = entry.get("source") or ""
        self.fstype: str = entry.get("type") or ""
        self.options = MountOptions(entry.get("options") or [])
        self.uids: list[OciIdMapping] = entry.get("uidMappings") or []
        self.gids: list[OciIdMapping] = entry.get("gidMappings") or []
        self.tree_fd = self.map_fd = -1
        self.mapper_fd = -1  # a socket to the process with the host's rights that maps owners; -1: this one has them
        self.directory = True
        self.label = ""  # of SELinux, for the root of a file system that takes no context
        self.lasting = True  # whether a directory that is made for it is there at the next start
        self.inside = ""  # the source's path in the root itself, where earlier mounts are
        self.copier: type[Copier] | None = None
        if self.options.copy_up:  # imported for few, and while modules can be
            from ketch.storage.tree_copy import Copier

            self.copier = Copier

    def describe(self) -> str:
        """The mount's name in error messages."""
        what = self.source if self.options.bind or not self.fstype else self.fstype
        return f'error mounting "{what}" to rootfs at "{self.destination}"'


class BundlePlaces:
    """The bundle, to which sources are relative, and the directory on the host that is the container's root.

    A path below that directory means a place in the container, where mounts that are listed before are seen: runc takes
    destinations so as well, and mounts in the order of the list.
    """

    __slots__ = ("_bundle", "_root")

    def __init__(self, bundle: str, root: str) -> None:
        self._bundle, self._root = bundle, os.path.normpath(root)

    def locate(self, mount: Planned) -> None:
        """Complete the paths of a mount; the root is made anew for each container, as far as anybody knows."""
        mount.lasting = False
        mount.destination = self._below_root(mount.destination) or mount.destination
        if mount.options.bind or mount.fstype == "bind":
            if not mount.source:
                raise RuntimeFailure(f"{mount.describe()}: it has no source", step="mounts")
            mount.source = os.path.join(self._bundle, mount.source)
            mount.inside = self._below_root(os.path.normpath(mount.source))

    def _below_root(self, path: str) -> str:
        """The path in the container; empty when it is no place in its root."""
        if path == self._root:
            return "/"
        return path[len(self._root) :] if path.startswith(f"{self._root}/") else ""


def open_source(mount: Planned, user: OpenUserNamespace | None) -> None:
    """Open a bind mount's source on the host (RuntimeFailure with step ``mounts``)."""
    try:
        options = mount.options
        if options.subdir:
            mount.tree_fd = os.open(mount.source, paths.O_PATH | os.O_DIRECTORY)
            mount.tree_fd = subtree(mount)
        else:
            mount.tree_fd = m.open_tree(mount.source, recursive=options.recursive)
        mount.directory = S_ISDIR(os.fstat(mount.tree_fd).st_mode)
        if mount.uids or mount.gids or (options.idmap and user is not None):
            _map_owners(mount, user)
        _set_attributes(mount)
    except OSError as e:
        raise failure("mounts", mount.describe(), e) from e


def open_maps(mount: Planned, user: OpenUserNamespace | None) -> None:
    """Open the maps for a source in the root, while the host's /proc is there."""
    if not (mount.uids or mount.gids or mount.options.idmap):
        return
    try:
        if mount.uids or mount.gids or user is None:
            mount.map_fd = user_namespaces.make(mount.uids, mount.gids)
        else:
            mount.map_fd = os.dup(user.fd)
    except OSError as e:
        raise failure("mounts", f"{mount.describe()}: map its owners", e, idmap.HINT) from e


def open_inside(mount: Planned, anchors: Anchors) -> None:
    """Open a bind mount's source in the container's root, whose links lead nowhere else (OSError)."""
    source_fd = anchors.open(mount.inside)
    try:
        mount.tree_fd = m.open_tree("", dir_fd=source_fd, recursive=mount.options.recursive)
    finally:
        os.close(source_fd)
    if mount.options.subdir:
        mount.tree_fd = subtree(mount)
    mount.directory = S_ISDIR(os.fstat(mount.tree_fd).st_mode)
    if mount.map_fd >= 0:
        _map_inside(mount)
    _set_attributes(mount)


def _map_inside(mount: Planned) -> None:
    recursive = mount.options.idmap == "ridmap"
    try:
        if mount.mapper_fd < 0:
            idmap.set_map(mount.tree_fd, mount.map_fd, recursive=recursive)
        else:
            idmap.ask(mount.mapper_fd, mount.tree_fd, mount.map_fd, recursive=recursive)
    except OSError as e:
        raise failure("mounts", f"{mount.describe()}: map its owners", e, idmap.HINT) from e
    finally:
        os.close(mount.map_fd)


def _set_attributes(mount: Planned) -> None:
    options = mount.options
    if options.set or options.clear:
        m.mount_setattr(mount.tree_fd, set_=options.set, clear=options.clear)
    if options.rec_set or options.rec_clear:
        m.mount_setattr(mount.tree_fd, set_=options.rec_set, clear=options.rec_clear, recursive=True)


def subtree(mount: Planned) -> int:
    """The subpath of a source, found without following a link out of it; ``tree_fd`` is closed."""
    try:
        part_fd = paths.open_in(mount.tree_fd, mount.options.subdir)
        try:
            mount.directory = S_ISDIR(os.fstat(part_fd).st_mode)
            return m.open_tree("", dir_fd=part_fd, recursive=mount.options.recursive)
        finally:
            os.close(part_fd)
    except OSError as e:
        raise failure("mounts", f"{mount.describe()}: `{mount.options.subdir}` of it", e) from e
    finally:
        os.close(mount.tree_fd)


def _map_owners(mount: Planned, user: OpenUserNamespace | None) -> None:
    recursive = mount.options.idmap == "ridmap"
    try:
        if mount.uids or mount.gids or user is None:
            idmap.apply(mount.tree_fd, mount.uids, mount.gids, recursive=recursive)
        else:
            idmap.apply_namespace(mount.tree_fd, user, recursive=recursive)
    except OSError as e:
        raise failure("mounts", f"{mount.describe()}: map its owners", e, idmap.HINT) from e
