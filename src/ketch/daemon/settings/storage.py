"""The daemon's settings for storage, with dockerd's names, and the choice of the driver."""

from __future__ import annotations

import logging
import os
import tempfile
from typing import TYPE_CHECKING

from ketch.engine.paths import OF_A_BUILD
from ketch.errors import FailedPrecondition, InvalidArgument, RuntimeFailure
from ketch.notation import booleans
from ketch.runtime.rootfs import overlay, view
from ketch.storage.database.reserve import FULL
from ketch.storage.removal import remove_tree
from ketch.storage.snapshots.copies import SnapshotsWithCopies
from ketch.storage.snapshots.overlay import OverlaySnapshots
from ketch.storage.snapshots.vfs import VfsSnapshots

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection

    from ketch.daemon.settings.config import Config
    from ketch.runtime.oci_types import OciIdMapping, OciMount
    from ketch.storage.snapshots.overlay import Snapshots

_VOLATILE = ("overlay.volatile", "overlay2.volatile")
DRIVERS = ("overlay", "overlay2", "vfs")
log = logging.getLogger("ketchd")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--storage-driver``."""
    parser.add_argument(
        "-s",
        "--storage-driver",
        metavar="NAME",
        help=f"how containers' files are kept: {', '.join(DRIVERS)} (default: overlay where it works, else vfs)",
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
    """The driver; FailedPrecondition when the one asked for does not work here.

    Whether overlay works is found out by making a mount that is attached nowhere.  Containers that are being
    ``removed`` may be of another driver; ``later`` carries out what nobody has to wait for; what ``check_going_on``
    raises ends a copy.
    """
    wanted = config.storage_driver
    if wanted == "vfs":
        _check_not_used(config.data_root, "vfs", removed)
        return VfsSnapshots(config.data_root, (), later, check_going_on)
    problem = _overlay_problem(config.data_root)
    if not problem:
        overlays = OverlaySnapshots(config.data_root, volatile=_volatile(config))
        if config.userns_copy:
            copies = VfsSnapshots(config.data_root, (), later, check_going_on)
            return SnapshotsWithCopies(config.data_root, overlays, copies, needed=not _maps_owners(config.data_root))
        _check_not_used(config.data_root, "overlay", removed)
        return overlays
    if wanted:
        raise FailedPrecondition(
            f"storage driver `{wanted}`: {problem}", hint="use another file system for --data-root, or -s vfs"
        )
    _check_not_used(config.data_root, "vfs", removed)
    warning = f"WARNING: overlay does not work on {config.data_root} ({problem}): vfs copies an image per container"
    log.warning("%s", warning)
    return VfsSnapshots(config.data_root, [warning], later, check_going_on)


def _volatile(config: Config) -> bool:
    """The value of ``overlay.volatile``, the only option that `check` accepts."""
    return bool(config.storage_opts) and booleans.parse(config.storage_opts[-1].partition("=")[2]) is True


def _check_not_used(data_root: str, driver: str, removed: Collection[str]) -> None:
    """Refuse a driver when containers of the other one exist: they would seem to have lost their files."""
    other, mark = ("overlay", "upper") if driver == "vfs" else ("vfs", "root")
    containers = os.path.join(data_root, "containers")
    for name in os.listdir(containers) if os.path.isdir(containers) else ():
        if name in removed or name.startswith(OF_A_BUILD):
            continue
        if os.path.isdir(os.path.join(containers, name, mark)):
            raise FailedPrecondition(
                f"storage driver `{driver}`: container {name[:12]} was made with {other}",
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
    os.makedirs(data_root, mode=0o710, exist_ok=True)
    try:
        directory = tempfile.mkdtemp(prefix=".overlay-", dir=data_root)
    except OSError as e:
        if e.errno not in FULL:
            raise
        return ""
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(os.path.join(directory, name))
        escaped = directory.replace("\\", "\\\\").replace(":", "\\:")
        options = [f"lowerdir={escaped}/lower", f"upperdir={directory}/upper", f"workdir={directory}/work"]
        mount(options, directory)
    except RuntimeFailure as e:
        return str(e)
    except OSError as e:
        if e.errno not in FULL:
            raise
    finally:
        remove_tree(directory)
    return ""
