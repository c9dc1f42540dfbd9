"""What a container sees of the host: ``-v``, ``--mount``, ``--tmpfs`` and the image's VOLUMEs.

Two steps: ``plan`` (at creation; makes volumes, checks sources, yields MountPoints that are stored and
shown by inspect), and ``oci_mounts`` (at each start; MountPoints → the ``mounts`` of an OCI bundle).
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any

from ketch.engine.model import ContainerConfig, HostConfig, Mount, MountPoint
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.volumes import VolumeStore

_PROPAGATION = frozenset(("shared", "rshared", "slave", "rslave", "private", "rprivate"))
_IGNORED = frozenset(("z", "Z", "cached", "delegated", "consistent", "nocopy", "copy"))


def parse_bind(spec: str) -> MountPoint:
    """``[source:]destination[:options]`` → MountPoint (``source`` empty and ``name`` set for a named volume).

    Raises InvalidArgument with Docker's words for anything else.
    """
    parts = spec.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts[:2]:
        raise InvalidArgument(f"invalid volume specification: '{spec}'")
    source, target, options = "", parts[0], ""
    if len(parts) >= 2:
        source, target = parts[0], parts[1]
    if len(parts) == 3:
        options = parts[2]
    target = check_target(target, spec)
    mode = [word for word in options.split(",") if word]
    propagation, rw = "", True
    for word in mode:
        if word in _PROPAGATION:
            propagation = word
        elif word in ("ro", "rw"):
            rw = word == "rw"
        elif word not in _IGNORED:
            raise InvalidArgument(f"invalid mode: {options}", hint=f"`{word}` is not a mount option; use ro, rw, z, Z")
    if "ro" in mode and "rw" in mode:
        raise InvalidArgument(f"invalid mode: {options}", hint="choose one of ro and rw")
    if source.startswith("/"):
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=target,
            mode=options,
            rw=rw,
            propagation=propagation or "rprivate",
        )
    return MountPoint(
        type="volume", source="", name=source, destination=target, driver="local", mode=options or "z", rw=rw,
        propagation="",
    )  # fmt: skip


def check_target(target: str, spec: str) -> str:
    """``target`` made canonical; it must be absolute and not the root itself."""
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid mount path: '{target}' mount path must be absolute"
        )
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid specification: destination can't be '/'"
        )
    return target


def _from_mount(mount: Mount) -> MountPoint:
    """One ``--mount``; bind sources must exist (unlike ``-v``, which makes them)."""

    def bad(why: str) -> InvalidArgument:
        return InvalidArgument(f'invalid mount config for type "{mount.type}": {why}')

    if not mount.target:
        raise bad("field Target must not be empty")
    target = check_target(mount.target, mount.target)
    if mount.type == "bind":
        options = mount.bind_options or {}
        if not mount.source:
            raise bad("field Source must not be empty")
        if not mount.source.startswith("/"):
            raise bad(f"invalid mount path: '{mount.source}' mount path must be absolute")
        if not os.path.lexists(mount.source) and not options.get("CreateMountpoint"):
            raise bad(f"bind source path does not exist: {mount.source}")
        propagation = options.get("Propagation") or "rprivate"
        if propagation not in _PROPAGATION:
            raise bad(f"invalid propagation mode: {propagation}")
        return MountPoint(
            type="bind", source=posixpath.normpath(mount.source), destination=target, rw=not mount.read_only,
            propagation=propagation, mode="norec" if options.get("NonRecursive") else "",
        )  # fmt: skip
    if mount.type == "volume":
        if mount.source.startswith("/"):
            raise bad(f"invalid mount path: '{mount.source}' is a path; use type bind for a host directory")
        mode = "nocopy" if (mount.volume_options or {}).get("NoCopy") else "z"
        return MountPoint(
            type="volume", source="", name=mount.source, destination=target, driver="local", mode=mode,
            rw=not mount.read_only,
        )  # fmt: skip
    if mount.type == "tmpfs":
        if mount.source:
            raise bad("field Source must not be specified")
        return MountPoint(type="tmpfs", source="", destination=target, rw=not mount.read_only)
    raise InvalidArgument(f"mount type {mount.type!r} unknown", hint="use bind, volume or tmpfs")


def plan(
    config: ContainerConfig,
    host: HostConfig,
    volumes: VolumeStore,
    planned: list[MountPoint] | None = None,
    inherited: Sequence[MountPoint] = (),
) -> list[MountPoint]:
    """All mounts of a new container, parents first, volumes made; the same target twice is InvalidArgument.

    ``planned`` is filled as volumes are made, so that a caller whose plan fails knows what to undo.
    ``inherited`` are the mounts of ``--volumes-from``: what the container itself says of a target goes before them.
    """
    planned = [] if planned is None else planned
    explicit = [parse_bind(spec) for spec in host.binds or ()] + [_from_mount(m) for m in host.mounts or ()]
    seen: set[str] = set()
    for point in explicit:
        if point.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        seen.add(point.destination)
    for target in host.tmpfs or {}:
        seen.add(check_target(target, target))
    for point in inherited:
        if point.destination not in seen:
            seen.add(point.destination)
            explicit.append(point)
    for target in config.volumes or {}:
        # Docker's API also allows "host:container" here in old clients; only targets are defined now.
        target = check_target(target, target)
        if target not in seen:
            seen.add(target)
            explicit.append(MountPoint(type="volume", source="", destination=target, driver="local"))
    for point in explicit:
        if point.type == "volume":
            labels = _volume_labels(host, point)
            volume = volumes.create(point.name, labels=labels)
            point.name, point.source = volume.name, volume.mountpoint
            planned.append(point)
        elif point.type == "bind" and not os.path.lexists(point.source):
            os.makedirs(point.source, exist_ok=True)
    planned[:] = sorted(explicit, key=lambda p: p.destination.count("/"))
    return planned


def _volume_labels(host: HostConfig, point: MountPoint) -> dict[str, str]:
    for mount in host.mounts or ():
        if mount.type == "volume" and mount.target.rstrip("/") == point.destination:
            return dict((mount.volume_options or {}).get("Labels") or {})
    return {}


def oci_mounts(points: list[MountPoint], host: HostConfig) -> list[dict[str, Any]]:
    """The ``mounts`` entries of an OCI bundle for these mount points and ``--tmpfs``, parents before children."""
    result: list[dict[str, Any]] = []
    for point in points:
        access = "rw" if point.rw else "ro"
        if not point.rw and point.type != "tmpfs" and point.mode != "norec":
            access = "rro"  # what is mounted below is read-only, too (mount_setattr(2))
        if point.type == "tmpfs":
            options = ["nosuid", "nodev", "noexec", access, *_tmpfs_options(host, point.destination)]
            result.append({"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options})
            continue
        recursive = "bind" if point.mode == "norec" else "rbind"
        options = [recursive, access, point.propagation or "rprivate"]
        result.append({"destination": point.destination, "type": "bind", "source": point.source, "options": options})
    for target, words in (host.tmpfs or {}).items():
        options = ["noexec", "nosuid", "nodev", *(w for w in words.split(",") if w)]
        for word in ("exec", "suid", "dev"):
            if word in options:
                options.remove("no" + word)
        result.append(
            {"destination": posixpath.normpath(target), "type": "tmpfs", "source": "tmpfs", "options": options}
        )
    return sorted(result, key=lambda m: m["destination"].count("/"))


def _tmpfs_options(host: HostConfig, target: str) -> list[str]:
    for mount in host.mounts or ():
        if mount.type == "tmpfs" and mount.target.rstrip("/") == target:
            options = mount.tmpfs_options or {}
            words = []
            if size := options.get("SizeBytes"):
                words.append(f"size={size}")
            if mode := options.get("Mode"):
                words.append(f"mode={mode:o}")
            return words
    return []
