"""A Docker whose daemon does not run, read from its data root."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ketch.cli.importing import forms
from ketch.cli.importing.disk import containerd, graph, records
from ketch.cli.importing.disk.bolt import Bolt
from ketch.cli.importing.disk.containerd import ContainerdImages
from ketch.cli.importing.disk.graph import GraphImages
from ketch.cli.importing.forms import understood
from ketch.cli.importing.source import CONTAINER, NETWORK, VOLUME, Unreadable
from ketch.errors import DataLoss, FailedPrecondition, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.notation.api_objects import ApiObject

_VOLUMES = "volumes/metadata.db"
_NETWORKS = "network/files/local-kv.db"
_NETWORK = b"docker/network/v1.0/network/"
_INDEX = 8  # bytes of a number before each value there
_SHORT = 12  # letters of an id, as it is shown
_MANAGED, _OF_THE_MACHINE = "containerd/daemon", "/var/lib/containerd"


class DataRoot:
    """A data root of Docker's (`source.Docker`), which no daemon can use until this is closed.

    Raises Conflict while a dockerd runs, FailedPrecondition for a directory that is none, PermissionDenied.
    """

    here, runs = True, False

    def __init__(self, root: str) -> None:
        self.root, self.unreadable = root, Unreadable()
        with ExitStack() as undo:
            try:
                self._volumes = self._bucket(undo, VOLUME, _VOLUMES, b"volumes")
                self._networks = self._bucket(undo, NETWORK, _NETWORKS, b"libnetwork")
                self._configs = self._configurations()
                used = {config["Driver"] for config in self._configs.values()}
                self._images = _images(root, used, self.unreadable)
            except FileNotFoundError as e:
                raise FailedPrecondition(
                    f"import from {root}: it is no data root of Docker's: {e.filename} is missing",
                    hint=f"name Docker's socket or data root with --from{_remapped(root)}",
                ) from e
            except PermissionError as e:
                raise PermissionDenied(f"import from {root}: {e.strerror}", hint="only root may read it") from e
            self._undo = undo.pop_all()

    def __enter__(self) -> DataRoot:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def images(self) -> list[ApiObject]:
        """All images, also those that are only steps of old builds."""
        return self._images.rows()

    def image(self, image_id: str) -> ApiObject:
        """One image (NotFound)."""
        return self._images.facts(image_id)

    def archive(self, image_id: str, names: list[str]) -> Iterator[bytes]:
        """An archive of an image under these names."""
        return self._images.archive(image_id, names)

    def volumes(self) -> list[ApiObject]:
        """All volumes."""
        place = os.path.join(self.root, "volumes")
        found = []
        for key, value in self._volumes.items():
            with self.unreadable.noted(VOLUME, _name(key)), understood(self._path(_VOLUMES)):
                found.append(forms.volume(records.volume(json.loads(value), place)))
        for name in sorted(os.listdir(place)):  # old dockerds had no records; names are of ASCII
            if (
                name.isascii()
                and name.encode() not in self._volumes
                and os.path.isdir(os.path.join(place, name, "_data"))
            ):
                options = os.path.join(place, name, "opts.json")
                with self.unreadable.noted(VOLUME, name), understood(options):
                    known = _read(options) if os.path.exists(options) else {}
                    found.append(forms.volume(records.volume_of_options(name, known, place)))
        return found

    def volume_sizes(self) -> dict[str, int]:
        """The empty ones alone: of the others all files would have to be looked at."""
        return {facts["Name"]: 0 for facts in self.volumes() if _is_empty(facts["Mountpoint"])}

    def networks(self) -> list[ApiObject]:
        """All networks."""
        found = []
        for key, value in self._networks.items():
            if key.startswith(_NETWORK):
                name = _name(key.removeprefix(_NETWORK))[:_SHORT]
                with self.unreadable.noted(NETWORK, name), understood(self._path(_NETWORKS)):
                    found.append(forms.network(records.network(json.loads(value[_INDEX:]))))
        return found

    def containers(self) -> list[ApiObject]:
        """The containers whose images are in the store, the newest first."""
        found = []
        for path, config in self._configs.items():
            if config["Driver"] in self._images.drivers:
                name = str(config.get("Name")).lstrip("/")
                directory = os.path.dirname(path)
                with self.unreadable.noted(CONTAINER, name), understood(directory):
                    host = _read(os.path.join(directory, "hostconfig.json"))
                    found.append(forms.container(records.container(config, host)))
        return sorted(found, key=lambda facts: str(facts["Created"]), reverse=True)

    def changes(self, container_id: str) -> list[ApiObject]:
        """Nothing: only a daemon tells them (FailedPrecondition)."""
        raise FailedPrecondition(
            f"import what container {container_id[:12]} wrote: no daemon runs, which could tell it",
            hint="start dockerd, and import through its socket; or leave --changes out",
        )

    def export(self, container_id: str) -> Iterator[bytes]:
        """Nothing, as `changes` (FailedPrecondition)."""
        self.changes(container_id)
        return iter(())

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _bucket(self, undo: ExitStack, kind: str, path: str, name: bytes) -> dict[bytes, bytes]:
        """The records in a database of all parts of a kind; it stays open."""
        with self.unreadable.noted(kind, self._path(path)):
            try:
                return undo.enter_context(Bolt(self._path(path))).items(name)
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as e:
                raise DataLoss(f"read {self._path(path)}: {e.strerror}") from e
        return {}

    def _configurations(self) -> dict[str, ApiObject]:
        """The configuration of each container, by the path of its file."""
        place = self._path("containers")
        found = {}
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            path = os.path.join(place, name, "config.v2.json")
            with self.unreadable.noted(CONTAINER, name[:_SHORT]), understood(path):
                config = _read(path)
                found[path] = {**config, "Driver": records.text(config.get("Driver", ""))}
        return found


def _name(key: bytes) -> str:
    return key.decode(errors="replace")


def _remapped(root: str) -> str:
    """The data roots of dockerds with --userns-remap in this one, as a hint."""
    try:
        names = os.listdir(root)
    except OSError:  # it is none, or not ours to read
        return ""
    found = [name for name in sorted(names) if os.path.exists(os.path.join(root, name, _VOLUMES))]
    return "".join(f" (one with --userns-remap: {os.path.join(root, name)})" for name in found)


def _images(root: str, used: set[str], unreadable: Unreadable) -> GraphImages | ContainerdImages:
    """The store of images that dockerd has used last: the one that containers use, or that has any."""
    place = os.path.join(root, "image")
    drivers = [name for name in sorted(os.listdir(place)) if name in graph.DRIVERS] if os.path.isdir(place) else []
    graphs = [GraphImages(root, driver, unreadable) for driver in drivers]
    for images in graphs:
        if used & images.drivers or (not used and images.rows()):
            return images
    for directory in (os.path.join(root, _MANAGED), _OF_THE_MACHINE):
        if os.path.exists(os.path.join(directory, containerd.DATABASE)):
            return ContainerdImages(directory, unreadable)
    if graphs:
        return graphs[0]
    raise FailedPrecondition(
        f"import from {root}: no store of images that can be read is there", hint="start dockerd, and import from it"
    )


def _is_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except (OSError, ValueError):  # ValueError: no path at all
        return False  # it will be missed when it is copied


def _read(path: str) -> ApiObject:
    try:
        with open(path, "rb") as f:
            found: ApiObject = json.load(f)
    except (OSError, ValueError, RecursionError) as e:
        raise DataLoss(f"read {path}: {e}") from e
    return found
