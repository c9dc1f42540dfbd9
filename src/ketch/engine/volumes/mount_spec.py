"""Mount specifications (``-v``, ``--mount``): text → a MountPoint, checked, with nothing made yet."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, NoReturn

from ketch.engine.model.records import (
    BindOptions,
    DriverConfig,
    ImageOptions,
    Mount,
    MountPoint,
    TmpfsOptions,
    VolumeOptions,
)
from ketch.engine.volumes import idmaps
from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.runtime.rootfs.mount_options import is_general_option

if TYPE_CHECKING:
    from collections.abc import Sequence

PROPAGATION = frozenset(("shared", "rshared", "slave", "rslave", "private", "rprivate"))
_ACCEPTED = frozenset(("z", "Z", "cached", "delegated", "consistent", "nocopy"))
_ONE_OF = (("ro", "rw"), ("z", "Z"), ("cached", "delegated", "consistent"), ("nocopy",), tuple(PROPAGATION))
_TMPFS_WORDS = ("exec", "noexec")  # of TmpfsOptions, beside size and mode; --tmpfs has more:
_TMPFS_KEYS = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"))


def parse_bind(spec: str) -> MountPoint:
    """``[source:]destination[:options]`` → MountPoint (``source`` empty and ``name`` set for a named volume).

    Raises UnclassifiedArgument with Docker's words for anything else.
    """
    parts = spec.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts[:2]:
        raise UnclassifiedArgument(f"invalid volume specification: '{spec}'")
    if len(parts) == 2 and _is_mode(parts[1]):  # a volume's options need its name
        raise UnclassifiedArgument(f"invalid volume specification: '{spec}'")
    source, target, options = ("", *parts, "") if len(parts) == 1 else (*parts, "", "")[:3]
    words = options.split(",") if options else []
    propagation, rw, idmap = _read_mode(words, options)
    kind = "bind" if source.startswith("/") else "volume"
    what = f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\""
    try:
        target = check_target(target, what)
    except InvalidArgument as e:
        raise UnclassifiedArgument(e.message) from e
    if kind == "bind":
        if "nocopy" in words:
            raise UnclassifiedArgument(
                f"{what}: field VolumeOptions must not be specified", hint="only volumes are filled from the image"
            )
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=target,
            mode=options,
            rw=rw,
            propagation=propagation or "rprivate",
            idmap=idmap,
        )
    if propagation:
        raise UnclassifiedArgument(
            f"{what}: field BindOptions must not be specified",
            hint="only binds of the host's directories have a propagation",
        )
    return MountPoint(
        type="volume",
        source="",
        name=source,
        destination=target,
        driver="local",
        mode=options or "z",
        rw=rw,
        propagation="",
        idmap=idmap,
    )


def parse_volumes_from(spec: str) -> tuple[str, bool]:
    """``CONTAINER[:OPTIONS]`` → (container, whether its mounts may be written); InvalidArgument in Docker's words."""
    if not spec:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    ref, _, options = spec.partition(":")
    if not ref:
        raise InvalidArgument('invalid name or ID supplied: ""', hint="use --volumes-from CONTAINER[:ro]")
    words = options.split(",") if options else []
    try:
        _, writable, idmap = _read_mode(words, options)
    except UnclassifiedArgument as e:
        raise InvalidArgument(e.message, hint="use --volumes-from CONTAINER[:ro]") from e
    if idmap or "nocopy" in words or PROPAGATION & set(words):
        raise InvalidArgument(f"invalid mode: {options}", hint="use --volumes-from CONTAINER[:ro]")
    return ref, writable


def _read_mode(words: list[str], options: str) -> tuple[str, bool, str]:
    """(propagation or empty, writable, id mapping) of the options of ``-v`` (UnclassifiedArgument)."""
    propagation, rw, idmap = "", True, ""
    for word in words:
        if word in PROPAGATION:
            propagation = word
        elif word in ("ro", "rw"):
            rw = word == "rw"
        elif word == "idmap" or word.startswith("idmap="):
            idmap = idmaps.check(word.partition("=")[2])
        elif word not in _ACCEPTED:
            raise UnclassifiedArgument(
                f"invalid mode: {options}", hint=f"`{word}` is not a mount option; use ro, rw, z, Z"
            )
    _check_opposites(words, options)
    return propagation, rw, idmap


def _is_mode(text: str) -> bool:
    try:
        _read_mode(text.split(","), text)
    except InvalidArgument:
        return False
    return True


def _check_opposites(mode: list[str], options: str) -> None:
    for group in _ONE_OF:
        if sum(word in group for word in mode) > 1:
            raise UnclassifiedArgument(f"invalid mode: {options}", hint=f"choose one of {', '.join(sorted(group))}")


def check_target(target: str, what: str = "") -> str:
    """``target`` made canonical; it must be absolute and not the root itself; ``what`` begins an error's sentence."""
    what = f"{what}: " if what else ""
    if not target.startswith("/"):
        raise InvalidArgument(f"{what}invalid mount path: '{target}' mount path must be absolute")
    target = posixpath.normpath("/" + target.lstrip("/"))
    if target == "/":
        raise InvalidArgument(f"{what}invalid specification: destination can't be '/'")
    return target


def of_mount(mount: Mount) -> MountPoint:
    """The mount point of one ``--mount`` (InvalidArgument in Docker's words); ``spec`` keeps the request."""
    if not mount.target:
        _refuse(mount, "field Target must not be empty")
    of_kinds = {
        "bind": mount.bind_options,
        "volume": mount.volume_options,
        "tmpfs": mount.tmpfs_options,
        "image": mount.image_options,
    }
    make = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image}.get(mount.type)
    target = check_target(mount.target, f'invalid mount config for type "{mount.type}"')
    if make is None:
        raise InvalidArgument(
            f'invalid mount config for type "{mount.type}": mount type unknown', hint="use bind, volume, tmpfs or image"
        )
    for kind, options in of_kinds.items():
        if options is not None and kind != mount.type:
            _refuse(mount, f"field {kind.capitalize()}Options must not be specified")
    point = make(mount, target)
    point.spec = mount
    return point


def _refuse(mount: Mount, why: str, hint: str | None = None) -> NoReturn:
    raise InvalidArgument(f'invalid mount config for type "{mount.type}": {why}', hint=hint)


def _bind(mount: Mount, target: str) -> MountPoint:
    options = mount.bind_options or BindOptions()
    if not mount.source:
        _refuse(mount, "field Source must not be empty")
    if not mount.source.startswith("/"):
        _refuse(mount, f"invalid mount path: '{mount.source}' mount path must be absolute")
    _check_source(mount, options)
    propagation = options.propagation or "rprivate"
    if propagation not in PROPAGATION:
        _refuse(mount, f"invalid propagation mode: {propagation}")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=target,
        rw=not mount.read_only,
        propagation=propagation,
        idmap="" if options.idmap is None else idmaps.check(options.idmap),
    )


def _check_source(mount: Mount, options: BindOptions) -> None:
    try:
        os.lstat(mount.source)
    except FileNotFoundError:
        if not options.create_mountpoint:
            _refuse(mount, f"bind source path does not exist: {mount.source}")
    except OSError as e:
        _refuse(mount, f"stat {mount.source}: {(e.strerror or str(e)).lower()}")


def _volume(mount: Mount, target: str) -> MountPoint:
    options = mount.volume_options or VolumeOptions()
    _check_subpath(mount, options.subpath)
    if options.subpath and not mount.source:
        _refuse(mount, "must not set Subpath when using anonymous volumes")
    if mount.read_only and not mount.source:
        _refuse(mount, "must not set ReadOnly mode when using anonymous volumes")
    driver = (options.driver_config or DriverConfig()).name or "local"
    return MountPoint(
        type="volume",
        source="",
        name=mount.source,
        destination=target,
        driver=driver,
        rw=not mount.read_only,
        mode="z",
    )


def _image(mount: Mount, target: str) -> MountPoint:
    if not mount.source:
        _refuse(mount, "field Source must not be empty")
    _check_subpath(mount, (mount.image_options or ImageOptions()).subpath)
    return MountPoint(type="image", source=mount.source, destination=target, rw=False)


def _check_subpath(mount: Mount, path: str) -> None:
    if path.startswith("/") or posixpath.normpath(path).split("/")[0] == "..":
        _refuse(mount, "subpath must be a relative path within the volume")


def _tmpfs(mount: Mount, target: str) -> MountPoint:
    if mount.source:
        _refuse(mount, "field Source must not be specified")
    tmpfs_words(mount)
    return MountPoint(type="tmpfs", source="", destination=target, rw=not mount.read_only)


def tmpfs_words(mount: Mount) -> list[str]:
    """The mount options of a ``--mount type=tmpfs`` (InvalidArgument)."""
    options = mount.tmpfs_options or TmpfsOptions()
    words = []
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    if options.mode:
        words.append(f"mode={options.mode:o}")
    for entry in options.options or ():
        if not 1 <= len(entry) <= 2:
            _refuse(mount, "invalid option array length")
        if len(entry) > 1 or entry[0] not in _TMPFS_WORDS:
            _refuse(mount, f"invalid option: {entry[0]}")
        words.append(entry[0])
    return without_opposites(["nosuid", "nodev", "noexec"], words)


def tmpfs_option_words(text: str) -> list[str]:
    """The words of ``--tmpfs PATH:TEXT``; InvalidArgument in Docker's words for one that it does not know."""
    words = text.split(",") if text else []
    for word in words:
        name, equals, _ = word.partition("=")
        if (name not in _TMPFS_KEYS) if equals else not is_general_option(word):
            raise InvalidArgument(f'invalid tmpfs option "{name}"', hint="see tmpfs(5) for the options")
    return words


def without_opposites(defaults: Sequence[str], words: Sequence[str]) -> list[str]:
    """Default options such as ``noexec``, except those whose opposites are given."""
    return [word for word in defaults if word.removeprefix("no") not in words] + list(words)
