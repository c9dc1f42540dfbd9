"""Images of Docker's own store: ``image/DRIVER`` for what they are, the storage driver's directory for their files."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from ketch.cli.importing import forms
from ketch.cli.importing.disk import records, tars
from ketch.cli.importing.disk.layers import SplitLayer
from ketch.cli.importing.forms import understood
from ketch.cli.importing.source import IMAGE
from ketch.errors import DataLoss, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.importing.source import Unreadable
    from ketch.notation.api_objects import ApiObject

DRIVERS = {"overlay2": "overlay2/{}/diff", "fuse-overlayfs": "fuse-overlayfs/{}/diff", "vfs": "vfs/dir/{}"}
_SHA256 = "sha256:"


class GraphImages:
    """The images of one storage driver below a data root."""

    def __init__(self, root: str, driver: str, unreadable: Unreadable) -> None:
        self._root, self._driver, self.unreadable = root, driver, unreadable
        self.drivers = {driver}  # of the containers that use these images
        self._place = os.path.join(root, "image", driver)

    def rows(self) -> list[ApiObject]:
        """All images, with their names."""
        named: dict[str, list[str]] = {}
        with self.unreadable.noted(IMAGE, self._repositories), understood(self._repositories):
            named = self._names()
        content = os.path.join(self._place, "imagedb/content/sha256")
        with understood(content):
            ids = [_SHA256 + name for name in sorted(os.listdir(content))] if os.path.isdir(content) else []
        return [{"Id": image_id, "RepoTags": named.get(image_id, [])} for image_id in ids]

    @property
    def _repositories(self) -> str:
        return os.path.join(self._place, "repositories.json")

    def _names(self) -> dict[str, list[str]]:
        """The names of each image that has any."""
        try:
            with open(self._repositories, "rb") as f:
                repositories = json.load(f)["Repositories"]
        except FileNotFoundError:
            return {}
        named: dict[str, list[str]] = {}
        for names in repositories.values():
            for name, image_id in names.items():
                if "@" not in records.text(name):
                    named.setdefault(records.text(image_id), []).append(name)
        return named

    def facts(self, image_id: str) -> ApiObject:
        """One image, as far as an import asks (NotFound)."""
        with understood(image_id):
            config = json.loads(self._config(image_id))
            size = sum(self._noted_size(chain) for chain in chain_ids(config["rootfs"].get("diff_ids") or []))
            return forms.image(records.image(image_id, config, size))

    def archive(self, image_id: str, names: list[str]) -> Iterator[bytes]:
        """The image as ``docker save`` writes it."""
        config = self._config(image_id)
        with understood(image_id):
            chains = chain_ids(json.loads(config)["rootfs"].get("diff_ids") or [])
            layers = [f"{chain.removeprefix(_SHA256)}/layer.tar" for chain in chains]
        config_name = f"{image_id.removeprefix(_SHA256)}.json"
        manifest = [{"Config": config_name, "RepoTags": names or None, "Layers": layers}]
        return tars.stream(self._entries(config_name, config, dict(zip(layers, chains, strict=True)), manifest))

    def _entries(
        self, config_name: str, config: bytes, layers: dict[str, str], manifest: list[ApiObject]
    ) -> Iterator[tars.File]:
        yield tars.of_bytes(config_name, config)
        for name, chain in layers.items():
            layer = self._layer(chain)
            yield tars.File(name, layer.size(), layer.chunks)
        yield tars.of_bytes("manifest.json", json.dumps(manifest).encode())

    def _config(self, image_id: str) -> bytes:
        path = os.path.join(self._place, "imagedb/content/sha256", image_id.removeprefix(_SHA256))
        try:
            with open(path, "rb") as f:
                data = f.read()
        except FileNotFoundError:
            raise NotFound(f"No such image: {image_id}") from None
        if _SHA256 + hashlib.sha256(data).hexdigest() != image_id:
            raise DataLoss(f"read {path}: its content is not what its name says")
        return data

    def _noted(self, chain: str, name: str) -> str:
        path = os.path.join(self._place, "layerdb/sha256", chain.removeprefix(_SHA256), name)
        try:
            with open(path, encoding="ascii") as f:
                return f.read().strip()
        except OSError as e:
            raise DataLoss(f"read {path}: {e.strerror}") from e

    def _noted_size(self, chain: str) -> int:
        return int(self._noted(chain, "size"))

    def _layer(self, chain: str) -> SplitLayer:
        files = os.path.join(self._root, DRIVERS[self._driver].format(self._noted(chain, "cache-id")))
        notes = os.path.join(self._place, "layerdb/sha256", chain.removeprefix(_SHA256), "tar-split.json.gz")
        return SplitLayer(files, notes)


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain id of each layer, by the diff ids of all layers."""
    chains: list[str] = []
    for diff_id in diff_ids:
        above = hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest() if chains else ""
        chains.append(_SHA256 + above if chains else diff_id)
    return chains
