"""Details of a container that are not in its record: names by links, and paths on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.spec import secrets

if TYPE_CHECKING:
    from ketch.engine.logs.drivers import LogDrivers
    from ketch.engine.model.records import Container
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.paths import ContainerPaths
    from ketch.images.store import ImageStore
    from ketch.storage.snapshots.overlay import Snapshots


class Details(Struct, frozen=True, eq=False):
    """Derived facts for ``inspect`` and lists of containers."""

    paths: ContainerPaths
    links: Links
    log_drivers: LogDrivers
    images: ImageStore
    snapshots: Snapshots

    def link_names(self, container: Container) -> list[str]:
        """The container's names by links: ``/web/db``."""
        return self.links.names(container)

    def own_links(self, container: Container) -> list[str] | None:
        """The container's own links in the form of ``HostConfig.Links``: ``/store:/web/db``."""
        return self.links.shown(container)

    def secrets(self, container: Container) -> list[dict[str, str]]:
        """The container's secrets as an inspect answer shows them: without their sources."""
        return secrets.shown(container.host)

    def directory(self, container: Container) -> str:
        """The directory of the container's files that are not part of its root."""
        return self.paths.directory(container.id)

    def log_path(self, container: Container) -> str:
        """The path of the log file that other programs may read; empty when there is none."""
        return self.log_drivers.log_path(container)

    def storage_driver(self, container: Container) -> str:
        """``overlay2`` or ``vfs``."""
        return self.snapshots.driver(container.id)

    def root_directories(self, container: Container) -> dict[str, str]:
        """The directories of the container's root, by Docker's names for them."""
        if self.storage_driver(container) == "vfs":
            return {"dir": self.snapshots.upper(container.id)}
        directory = self.paths.directory(container.id)
        return {
            "ID": container.id,
            "LowerDir": ":".join(self.layer_directories(self.images.resolve(container.image_id).chain_ids)),
            "UpperDir": os.path.join(directory, "upper"),
            "WorkDir": os.path.join(directory, "work"),
            "MergedDir": f"/proc/{container.state.pid}/root" if container.state.pid else "",
        }

    def layer_directories(self, chain_ids: list[str]) -> list[str]:
        """The directories of an image's unpacked layers, the newest first."""
        layers = os.path.join(self.paths.data_root, "layers")
        return [os.path.join(layers, chain.partition(":")[2] or chain, "diff") for chain in reversed(chain_ids)]
