"""Images of containerd's store: their names in its database, everything else in blobs by digest."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING

from ketch.cli.importing import forms
from ketch.cli.importing.disk import records, tars
from ketch.cli.importing.disk.bolt import Bolt
from ketch.cli.importing.forms import understood
from ketch.cli.importing.source import IMAGE
from ketch.errors import DataLoss, NotFound
from ketch.notation.architectures import goarch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.importing.source import Unreadable
    from ketch.notation.api_objects import ApiObject

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs"
_IMAGES = (b"v1", b"moby", b"images")
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_LIBRARY = "docker.io/library/"
_UNNAMED = "moby-dangling@"


class ContainerdImages:
    """The images of dockerd's in the store of a containerd."""

    def __init__(self, root: str, unreadable: Unreadable) -> None:
        self._root, self.unreadable = root, unreadable
        self.drivers = {"overlayfs", "native", "fuse-overlayfs", "btrfs", "zfs", "erofs", "blockfile"}
        self._targets: dict[str, ApiObject] = {}  # descriptors of images by id
        self._names: dict[str, list[str]] = {}
        path = os.path.join(root, DATABASE)
        with unreadable.noted(IMAGE, path), Bolt(path) as database:
            for key in database.buckets(*_IMAGES):
                name = key.decode(errors="replace")
                with unreadable.noted(IMAGE, name), understood(path):
                    self._note(name, database.items(*_IMAGES, key, b"target"))

    def _note(self, name: str, target: dict[bytes, bytes]) -> None:
        digest = target[b"digest"].decode()
        media_type = target[b"mediatype"].decode()
        self._targets[digest] = {"mediaType": media_type, "digest": digest, "size": _varint(target[b"size"])}
        names = self._names.setdefault(digest, [])
        if not name.startswith(_UNNAMED) and "@" not in name:
            names.append(familiar(name))

    def rows(self) -> list[ApiObject]:
        """All images, with their names."""
        return [{"Id": digest, "RepoTags": sorted(self._names[digest])} for digest in sorted(self._targets)]

    def facts(self, image_id: str) -> ApiObject:
        """One image, as far as an import asks: of several platforms this machine's, or the first (NotFound)."""
        if image_id not in self._targets:
            raise NotFound(f"No such image: {image_id}")
        with understood(image_id):
            manifests = list(self._manifests(self._targets[image_id]))
            if not manifests:
                raise DataLoss(f"image {image_id}: its content is not there for any platform")
            found = [(manifest, self._json(manifest["config"]["digest"])) for manifest in manifests]
            mine = goarch(platform.machine())
            manifest, config = next((pair for pair in found if pair[1].get("architecture") == mine), found[0])
            size = sum(layer["size"] for layer in manifest["layers"])
            return forms.image(records.image(image_id, config, size))

    def archive(self, image_id: str, names: list[str]) -> Iterator[bytes]:
        """The image as an OCI image-layout, with all content that is there."""
        target = self._targets[image_id]
        named = [{**target, "annotations": {"io.containerd.image.name": full(name)}} for name in names] or [target]
        index = {"schemaVersion": 2, "mediaType": _INDEXES[0], "manifests": named}
        return tars.stream(self._entries(target, index))

    def _entries(self, target: ApiObject, index: ApiObject) -> Iterator[tars.File]:
        yield tars.of_bytes("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        yield tars.of_bytes("index.json", json.dumps(index).encode())
        with understood(target["digest"]):
            for digest in dict.fromkeys(self._content(target)):
                path = self._path(digest)
                yield tars.of_file(f"blobs/{digest.replace(':', '/')}", path, os.path.getsize(path))

    def _content(self, descriptor: ApiObject) -> Iterator[str]:
        """The digests of a manifest or an index, and of all below it that is there."""
        digest = descriptor["digest"]
        if not os.path.exists(self._path(digest)):
            return
        yield digest
        if descriptor["mediaType"] in _INDEXES:
            for below in self._json(digest)["manifests"]:
                yield from self._content(below)
            return
        manifest = self._json(digest)
        for below in (manifest["config"], *manifest["layers"]):
            if os.path.exists(self._path(below["digest"])):
                yield below["digest"]

    def _manifests(self, descriptor: ApiObject) -> Iterator[ApiObject]:
        """The manifests of images (not of attestations) whose content is there as a whole."""
        if not os.path.exists(self._path(descriptor["digest"])):
            return
        facts = self._json(descriptor["digest"])
        if descriptor["mediaType"] in _INDEXES:
            for below in facts["manifests"]:
                if (below.get("platform") or {}).get("os") != "unknown":
                    yield from self._manifests(below)
        elif all(os.path.exists(self._path(one["digest"])) for one in (facts["config"], *facts["layers"])):
            yield facts

    def _path(self, digest: str) -> str:
        algorithm, _, name = digest.partition(":")
        if not (algorithm.isalnum() and name.isalnum()):
            raise DataLoss(f"read {self._root}: `{digest}` is no digest")
        return os.path.join(self._root, _BLOBS, algorithm, name)

    def _json(self, digest: str) -> ApiObject:
        try:
            with open(self._path(digest), "rb") as f:
                found: ApiObject = json.load(f)
        except (OSError, ValueError, RecursionError) as e:
            raise DataLoss(f"read {self._path(digest)}: {e}") from e
        return found


def familiar(name: str) -> str:
    """``docker.io/library/busybox:latest`` → ``busybox:latest``."""
    return name.removeprefix(_LIBRARY).removeprefix("docker.io/") if name.startswith("docker.io/") else name


def full(name: str) -> str:
    """``busybox:latest`` → ``docker.io/library/busybox:latest``."""
    head = name.partition("/")[0]
    if "/" not in name:
        return _LIBRARY + name
    return name if "." in head or ":" in head or head == "localhost" else f"docker.io/{name}"


def _varint(data: bytes) -> int:
    """A number as Go's encoding/binary writes it (varint)."""
    value = 0
    for place, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * place)
    return value >> 1 ^ -(value & 1)
