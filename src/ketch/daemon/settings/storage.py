"""The daemon's settings for storage, with dockerd's names, and the choice of the driver."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ketch import programs
from ketch.engine.paths import OF_A_BUILD
from ketch.errors import FailedPrecondition, InvalidArgument, RuntimeFailure, Unavailable
from ketch.notation import booleans
from ketch.runtime import defaults
from ketch.runtime.cgroups import monitors
from ketch.runtime.rootfs import overlay, view
from ketch.storage import overlay_notes, ownership
from ketch.storage.database.reserve import FULL
from ketch.storage.removal import remove_tree
from ketch.storage.snapshots import fuse
from ketch.storage.snapshots.copies import SnapshotsWithCopies
from ketch.storage.snapshots.overlay import OverlaySnapshots
from ketch.storage.snapshots.quota import backing
from ketch.storage.snapshots.vfs import VfsSnapshots

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Iterator

    from ketch.daemon.settings.config import Config
    from ketch.runtime.oci_types import OciIdMapping, OciMount
    from ketch.storage.snapshots.overlay import Snapshots

_OF_PROGRAM = f"storage driver `{fuse.NAME}`: "
_VOLATILE = ("overlay.volatile", "overlay2.volatile")
DRIVERS = ("overlay", "overlay2", fuse.NAME, "vfs")
# The directory of a container that tells which driver has made it; the first one that is there.
_MARKS = (("merged", fuse.NAME), ("root", "vfs"), ("upper", "overlay"))
# Whose containers a driver can have: fuse-overlayfs reads what overlay has written.
_READS = {"overlay": {"overlay"}, fuse.NAME: {fuse.NAME, "overlay"}, "vfs": {"vfs"}}
log = logging.getLogger("ketchd")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--storage-driver``."""
    parser.add_argument(
        "-s",
        "--storage-driver",
        metavar="NAME",
        help=f"how containers' files are kept: {', '.join(DRIVERS)} (default: overlay where it works; docs/storage.md)",
    )
    parser.add_argument(
        "--storage-opt",
        metavar="KEY=VALUE",
        action="append",
        dest="storage_opts",
        help="overlay.volatile=true: what containers write is not brought to the disk (docs/storage.md)",
    )


def check(config: Config) -> None:
    """InvalidArgument for a driver or an option that does not exist."""
    for option in config.storage_opts:
        key, _, value = option.partition("=")
        if key not in _VOLATILE or booleans.parse(value) is None:
            raise InvalidArgument(
                f"unknown storage option {option}",
                hint="there is overlay.volatile=true; redirect_dir and metacopy stay off, sizes are set per container",
            )
    if config.storage_driver and config.storage_driver not in DRIVERS:
        raise InvalidArgument(f"driver not supported: {config.storage_driver}", hint=f"use one of {', '.join(DRIVERS)}")


def choose(
    config: Config,
    removed: Collection[str] = (),
    later: Callable[[Callable[[], None]], object] = lambda work: work(),
    check_going_on: Callable[[], None] = lambda: None,
) -> Snapshots:
    """The driver; FailedPrecondition when the one asked for, or that of the present containers, does not work here.

    Whether overlay works is found out by making a mount that is attached nowhere.  Containers that are being
    ``removed`` may be of another driver; ``later`` carries out what nobody has to wait for; what ``check_going_on``
    raises ends a copy.
    """
    os.makedirs(config.data_root, mode=0o710, exist_ok=True)
    copies = partial(VfsSnapshots, config.data_root, (), later, check_going_on)
    remarks = list(_remarks(config.data_root))
    present = _present(config.data_root, removed)
    if config.storage_driver:
        chosen = _named(config, copies, present)
    else:
        chosen = _best(config, copies, present, plain=not remarks)
    chosen.warnings.extend(remarks)
    for warning in chosen.warnings:
        log.warning("%s", warning.removeprefix("WARNING: "))
    return chosen


def _named(config: Config, copies: Callable[[], VfsSnapshots], present: dict[str, str]) -> Snapshots:
    """The driver that somebody has asked for (FailedPrecondition)."""
    wanted = config.storage_driver
    if wanted == "vfs":
        _check_present("vfs", present)
        return copies()
    if wanted == fuse.NAME:
        _check_present(fuse.NAME, present)
        return _by_program(config, copies)
    if problem := _overlay_problem(config.data_root):
        raise FailedPrecondition(
            f"storage driver `{wanted}`: {problem}", hint="use another file system for --data-root, or -s vfs"
        )
    return _by_kernel(config, copies, present)


def _best(config: Config, copies: Callable[[], VfsSnapshots], present: dict[str, str], *, plain: bool) -> Snapshots:
    """The driver where nobody has named one: that of the present containers, else the fastest that works.

    ``plain``: the data root's file system keeps all that files of images have.
    """
    problem = _overlay_problem(config.data_root)
    kept = next((driver for _, driver in _MARKS if driver in present), "")
    both = {"vfs", "overlay"} <= set(present)  # of --userns-copy, without which it is refused
    if not problem and (config.userns_copy or both or kept in ("", "overlay")):
        return _by_kernel(config, copies, present)
    why = f"overlay does not work on {config.data_root} ({problem})"
    if not problem:
        why = f"container {present[kept][:12]} was made with {kept}, which is used until it is removed"
    other = f"--storage-driver {fuse.NAME}, which is slower (docs/storage.md)"
    if kept == fuse.NAME or (defaults.mapped() and plain and kept != "vfs"):
        try:
            _check_present(fuse.NAME, present)
            chosen = _by_program(config, copies)
        except FailedPrecondition as e:
            if kept == fuse.NAME:
                raise FailedPrecondition(
                    e.message, hint=f"{e.hint}: container {present[kept][:12]} was made with it"
                ) from e
            other = f"what {fuse.NAME} needs ({e.message.removeprefix(_OF_PROGRAM)})"
        else:
            chosen.warnings.insert(0, f"WARNING: {why}: {fuse.NAME} serves containers' files, more slowly")
            return chosen
    _check_present("vfs", present)
    copied = copies()
    warning = f"WARNING: {why}: vfs copies an image per container"
    copied.warnings.append(f"{warning}; have --data-root on a local disk, or {other}" if problem else warning)
    return copied


def _by_kernel(config: Config, copies: Callable[[], VfsSnapshots], present: dict[str, str]) -> Snapshots:
    """The driver overlay, which works here (FailedPrecondition: containers have another one)."""
    overlays = OverlaySnapshots(config.data_root, volatile=_volatile(config))
    if config.userns_copy:
        return SnapshotsWithCopies(config.data_root, overlays, copies(), needed=not _maps_owners(config.data_root))
    _check_present("overlay", present)
    return overlays


def _by_program(config: Config, copies: Callable[[], VfsSnapshots]) -> Snapshots:
    """The driver fuse-overlayfs (FailedPrecondition: the program is missing, or cannot serve)."""
    program = programs.find(fuse.NAME)
    if program is None:
        raise FailedPrecondition(f"{_OF_PROGRAM}the program is not installed", hint="install it")
    if set(config.data_root) & set(":,\\"):
        raise FailedPrecondition(
            f"{_OF_PROGRAM}{config.data_root} has a colon or a comma in it", hint="use another data root"
        )

    def serve(options: list[str], directory: str) -> None:
        mount_fd, process = fuse.begin(program, ",".join(options), os.path.join(directory, "log"))
        os.close(mount_fd)
        process.kill()
        process.wait()  # NFS and FUSE keep a directory in which somebody has a file open

    try:
        problem = _problem(config.data_root, serve)
    except OSError as e:
        problem = f"{e.filename or 'fuse'}: {os.strerror(e.errno or 0).lower()}"
    if problem:
        raise FailedPrecondition(f"{_OF_PROGRAM}{problem}", hint="/dev/fuse is needed, and the program")
    view_problem = _problem(config.data_root, _show)

    def settle(pid: int) -> None:
        if why_not := monitors.bring(config.cgroup_parent, pid):
            log.warning(
                "%s (pid %d) stays in the cgroup of ketchd, and ends when that does: %s", fuse.NAME, pid, why_not
            )

    return fuse.FuseSnapshots(config.data_root, program, copies().view if view_problem else None, settle)


def _show(options: list[str], directory: str) -> None:
    """Mount layers without an upper directory, which more file systems allow."""
    os.close(overlay.open_overlay([f"{options[0]}:{directory}/upper", "ro"]))


def _remarks(data_root: str) -> Iterator[str]:
    """Sentences on what the data root's file system lacks of what files of images have."""
    kind = backing(data_root)[1]
    with _scratch(data_root) as directory:
        if directory and (why := ownership.problem(directory)):
            yield (
                f"WARNING: all files of images and containers belong to root: {data_root} is on {kind}, which refuses"
                f" other owners ({why}); have --data-root on a local disk"
            )
        if directory and (why := _xattr_problem(directory)):
            yield (
                f"WARNING: layers that replace a directory of their image cannot be had: {data_root} is on {kind},"
                f" which keeps no attributes {overlay_notes.PREFIX}* ({why}); have --data-root on a local disk"
            )
        if directory and (why := _whiteout_problem(directory)):
            yield (
                f"WARNING: layers that remove a file of their image cannot be had: {data_root} is on {kind}, which"
                f" makes no whiteouts ({why}); have --data-root on a local disk, in a container on a volume"
            )


def _xattr_problem(directory: str) -> str:
    try:
        os.setxattr(directory, overlay_notes.OPAQUE, b"y")
    except OSError as e:
        if e.errno not in FULL:
            return os.strerror(e.errno or 0).lower()
    return ""


def _whiteout_problem(directory: str) -> str:
    try:
        os.mknod(os.path.join(directory, "whiteout"), stat.S_IFCHR, 0)
    except OSError as e:
        if e.errno not in FULL:
            return os.strerror(e.errno or 0).lower()
    return ""


def _volatile(config: Config) -> bool:
    """The value of ``overlay.volatile``, the only option that `check` accepts."""
    return bool(config.storage_opts) and booleans.parse(config.storage_opts[-1].partition("=")[2]) is True


def _present(data_root: str, removed: Collection[str]) -> dict[str, str]:
    """The drivers that have made the containers, and one container of each."""
    containers = os.path.join(data_root, "containers")
    found: dict[str, str] = {}
    for name in os.listdir(containers) if os.path.isdir(containers) else ():
        if name in removed or name.startswith(OF_A_BUILD):
            continue
        for mark, driver in _MARKS:
            if os.path.isdir(os.path.join(containers, name, mark)):
                found.setdefault(driver, name)
                break
    return found


def _check_present(driver: str, present: dict[str, str]) -> None:
    """Refuse a driver when containers of another one exist: they would seem to have lost their files."""
    for other, container in present.items():
        if other not in _READS[driver]:
            raise FailedPrecondition(
                f"storage driver `{driver}`: container {container[:12]} was made with {other}",
                hint=f"start with --storage-driver {other}, or remove the containers with it first"
                + ("; with --userns-copy both kinds can be there" if other == "vfs" else ""),
            )


def _overlay_problem(data_root: str) -> str:
    """The reason why overlay cannot work here; empty when it can, or when a full disk prevents the test."""
    return _problem(data_root, lambda options, _: os.close(overlay.open_overlay(options)))


def _maps_owners(data_root: str) -> bool:
    """Whether the kernel maps the owners of overlay's layers here."""
    ids: list[OciIdMapping] = [{"containerID": 0, "hostID": 1, "size": 1}]

    def mount(options: list[str], directory: str) -> None:
        root: list[OciMount] = [{"destination": "/", "type": "overlay", "options": [*options, "idmap"]}]
        view.of_snapshot(root, [], directory, (ids, ids)).close()

    problem = _problem(data_root, mount)
    if problem:
        log.info("containers in user namespaces get copies of their images: %s", problem)
    return not problem


def _problem(data_root: str, mount: Callable[[list[str], str], None]) -> str:
    """The reason why an overlay in a new directory cannot be mounted; empty when it can, or the disk is full."""
    with _scratch(data_root) as directory:
        if not directory:
            return ""
        try:
            for name in ("lower", "upper", "work"):
                os.mkdir(os.path.join(directory, name))
            escaped = directory.replace("\\", "\\\\").replace(":", "\\:")
            options = [f"lowerdir={escaped}/lower", f"upperdir={directory}/upper", f"workdir={directory}/work"]
            mount(options, directory)
        except (RuntimeFailure, Unavailable) as e:
            return str(e)
        except OSError as e:
            if e.errno not in FULL:
                raise
    return ""


@contextmanager
def _scratch(data_root: str) -> Iterator[str]:
    """A directory that passes; an empty text on a disk that is full."""
    try:
        directory = tempfile.mkdtemp(prefix=".overlay-", dir=data_root)
    except OSError as e:
        if e.errno not in FULL:
            raise
        yield ""
        return
    try:
        yield directory
    finally:
        remove_tree(directory)
