"""Mounts of a container, planned from ``-v``, ``--mount``, ``--tmpfs`` and the image's VOLUMEs.

Two steps: ``plan`` (at creation; makes volumes, finds images, yields MountPoints that are stored and
shown by inspect), and ``oci_mounts`` (at each start; MountPoints → the ``mounts`` of an OCI bundle).
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from ketch import trees
from ketch.engine.model.records import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    HostConfig,
    Mount,
    MountPoint,
    VolumeOptions,
)
from ketch.engine.model.volume import ANONYMOUS
from ketch.engine.volumes import idmaps, local_driver, propagation
from ketch.engine.volumes.mount_spec import (
    check_target,
    of_mount,
    parse_bind,
    tmpfs_option_words,
    tmpfs_words,
    without_opposites,
)
from ketch.errors import FailedPrecondition, InvalidArgument, MountMismatch, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.volumes.store import VolumeStore
    from ketch.runtime.oci_types import OciMount

    ImageView = Callable[[str], tuple[str, list[str]]]

OWN_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")  # files of every container, whatever its image has
_PRIVATE = ["nosuid", "nodev", "noexec"]


class MountPlanner(Struct, frozen=True, eq=False):
    """Plans mounts; ``image_view`` gives an image's id and overlay options (NotFound)."""

    volumes: VolumeStore
    image_view: ImageView | None = None
    data_root: str = ""

    def plan(
        self,
        config: ContainerConfig,
        host: HostConfig,
        planned: list[MountPoint] | None = None,
        inherited: Sequence[MountPoint] = (),
        made_for: str = "",
    ) -> list[MountPoint]:
        """All mounts of a new container, parents first, volumes made; the same target twice is InvalidArgument.

        ``planned`` is filled as volumes are made, so that a caller whose plan fails knows what to undo.
        ``inherited`` are the mounts of ``--volumes-from``: what the container itself says of a target goes before them.
        ``made_for``: the container's id, see `VolumeStore.create`.
        """
        planned = [] if planned is None else planned
        explicit = [parse_bind(spec) for spec in host.binds or ()] + [of_mount(m) for m in host.mounts or ()]
        seen: set[str] = set()
        for point in explicit:
            if point.destination in seen:
                shown = point.spec.target if point.spec is not None else point.destination
                raise InvalidArgument(f"Duplicate mount point: {shown}")
            seen.add(point.destination)
            point.named = bool(point.name) and not _is_anonymous(point)
            if self.data_root:
                propagation.keep_out_of_daemon(point, self.data_root)
        of_binds = {point.destination for point in explicit if point.spec is None}
        for target in host.tmpfs or {}:
            destination = check_target(target)
            if destination in of_binds:
                raise InvalidArgument(f"Duplicate mount point: {destination}")
            seen.add(destination)
        own = {point.destination for point in explicit}
        for point in inherited:  # a tmpfs covers one, which is shown all the same
            if point.destination not in own:
                seen.add(point.destination)
                explicit.append(point)
        for target in config.volumes or {}:
            # An image's may be relative to the root, as `VOLUME data` was written into its configuration.
            target = check_target(target if target.startswith("/") else f"/{target}")
            if target not in seen:
                seen.add(target)
                explicit.append(MountPoint(type="volume", source="", destination=target, driver="local"))
        for point in explicit:
            _make(point, host, self.volumes, self.image_view, made_for)
            planned.append(point)
        planned[:] = sorted(explicit, key=lambda p: p.destination.count("/"))
        return planned


def _is_anonymous(point: MountPoint) -> bool:
    """Whether a mount takes an anonymous volume over, as one that is imported does: it goes with the container."""
    options = point.spec.volume_options if point.spec is not None else None
    return options is not None and ANONYMOUS in (options.labels or {})


def _make(
    point: MountPoint, host: HostConfig, volumes: VolumeStore, image_view: ImageView | None, made_for: str
) -> None:
    """Make what a mount needs: its volume, its directory, its image."""
    if point.type == "volume":
        options = (point.spec.volume_options if point.spec is not None else None) or VolumeOptions()
        config = options.driver_config or DriverConfig()
        driver = config.name or (host.volume_driver if point.spec is None else "")
        volume = volumes.create(
            point.name, driver=driver, labels=options.labels, options=config.options, made_for=made_for
        )
        point.name, point.source = volume.name, volume.mountpoint
        if not point.idmap and local_driver.is_elsewhere(volume.options):
            point.idmap = idmaps.NONE
    elif point.type == "bind" and point.idmap == idmaps.OWNER and not os.path.lexists(point.source):
        trees.make_path(point.source)  # its owner is wanted now; other sources are made by the start
    elif point.type == "image" and image_view is not None:
        point.name, point.layers = image_view(point.source)


def keep_below_writable(points: Sequence[MountPoint]) -> None:
    """Make read-only binds leave alone what is mounted below them, as they were before API 1.44."""
    for point in points:
        if point.type == "bind" and not point.rw:
            spec = point.spec or Mount(type="bind", source=point.source, target=point.destination)
            options = structs.replace(spec.bind_options or BindOptions(), read_only_non_recursive=True)
            point.spec = structs.replace(spec, bind_options=options)


def check_at_start(points: Sequence[MountPoint]) -> None:
    """Refuse what Docker refuses at each start: contradictory options, a directory on our files, a missing subpath.

    Volumes are mounted by then.  Raises FailedPrecondition, MountMismatch or NotFound in Docker's words.
    """
    for point in points:
        options = (point.spec.bind_options if point.spec is not None else None) or BindOptions()
        if point.rw and options.read_only_non_recursive:
            raise FailedPrecondition("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
        if point.rw and options.read_only_force_recursive:
            raise FailedPrecondition("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
        if options.read_only_non_recursive and options.read_only_force_recursive:
            raise FailedPrecondition(
                "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
            )
        if point.destination in OWN_FILES and os.path.isdir(point.source):
            raise MountMismatch.of(f'error mounting "{point.source}" to rootfs at "{point.destination}"')
        if point.type == "volume" and (subpath := _subpath(point)):
            _check_subpath(point.source, subpath)


def _check_subpath(root: str, subpath: str) -> None:
    """Raise NotFound, in Docker's words, for a part that the volume lacks; links are the runtime's to judge."""
    path = root
    for name in subpath.split("/"):
        path = os.path.join(path, name)
        if os.path.islink(path):
            return
        if not os.path.lexists(path):
            raise NotFound(
                f"cannot access path {os.path.join(root, subpath)}: lstat {path}: no such file or directory",
                hint="make it in the volume first",
            )


def make_sources(points: Sequence[MountPoint]) -> None:
    """Make the directories that binds lack, as Docker does it at each start: for ``-v``, and where it was asked for.

    Raises InvalidArgument for another bind without a source, FailedPrecondition when one cannot be made.
    """
    for point in points:
        if point.type != "bind" or os.path.lexists(point.source):
            continue
        options = point.spec.bind_options if point.spec is not None else None
        if point.spec is not None and not (options is not None and options.create_mountpoint):
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
        try:
            trees.make_path(point.source)
        except NotADirectoryError as e:
            raise MountMismatch.of(f"failed to fulfil mount request: open {point.source}") from e
        except OSError as e:
            reason = (e.strerror or "").lower()
            raise FailedPrecondition(
                f"error while creating mount source path '{point.source}': mkdir {point.source}: {reason}"
            ) from e


def oci_mounts(points: list[MountPoint], host: HostConfig, within: UserNamespace | None = None) -> list[OciMount]:
    """The ``mounts`` entries of an OCI bundle for these mount points and ``--tmpfs``, parents before children.

    ``within`` is the container's user namespace.
    """
    covered = {posixpath.normpath(target) for target in host.tmpfs or {}}
    result = [_oci_mount(point, within) for point in points if point.destination not in covered]
    for target, words in (host.tmpfs or {}).items():
        options = without_opposites(_PRIVATE, tmpfs_option_words(words))
        result.append(
            {"destination": posixpath.normpath(target), "type": "tmpfs", "source": "tmpfs", "options": options}
        )
    return sorted(result, key=lambda m: m["destination"].count("/"))


def _idmap(point: MountPoint) -> str:
    """The mapping of a bind or a volume: as asked for, else a volume's ids are the container's own."""
    return point.idmap or (idmaps.CONTAINER if point.type == "volume" else idmaps.NONE)


def _oci_mount(point: MountPoint, within: UserNamespace | None) -> OciMount:
    entry: OciMount = {"destination": point.destination, "type": point.type, "source": point.source}
    if point.type == "tmpfs":
        words = tmpfs_words(point.spec) if point.spec is not None else _PRIVATE
        return {**entry, "source": "tmpfs", "options": ["rw" if point.rw else "ro", *words]}
    options = [*_bind_words(point)]
    if point.type == "image":
        options = [*point.layers]
    if subpath := _subpath(point):
        options.append(f"X-mount.subdir={subpath}")
    if point.type == "image":
        mapped = ["idmap"] if within else []
        return {**entry, "type": "overlay", "source": "overlay", "options": [*options, *mapped]}
    idmap = _idmap(point)
    if idmap == idmaps.CONTAINER and within is not None:
        options.append("idmap")
    elif idmap not in (idmaps.CONTAINER, idmaps.NONE, idmaps.OWNER):
        entry["uidMappings"], entry["gidMappings"] = idmaps.oci(idmap, within)
        options.append("idmap")
    return {**entry, "type": "bind", "options": options}


def _bind_words(point: MountPoint) -> list[str]:
    options = (point.spec.bind_options if point.spec is not None else None) or BindOptions()
    recursive = not options.non_recursive
    access = "rw"
    if not point.rw:  # what is mounted below is read-only, too (mount_setattr(2)), unless asked otherwise
        access = "rro" if recursive and not options.read_only_non_recursive else "ro"
    return ["rbind" if recursive else "bind", access, point.propagation or "rprivate"]


def _subpath(point: MountPoint) -> str:
    if point.spec is None:
        return ""
    options = point.spec.volume_options if point.type == "volume" else point.spec.image_options
    subpath = options.subpath if options is not None else ""
    return posixpath.normpath(subpath) if subpath else ""
