"""Changes of legacy links while containers run: those that have a link are told by their files in /etc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.errors import Conflict, NotFound

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes


@dataclass(frozen=True, eq=False)
class LinkChanges:
    """What becomes of links when they, or the containers that they lead to, change."""

    store: ContainerStore
    links: Links
    sandboxes: Sandboxes

    async def remove(self, name: str) -> None:
        """``docker rm --link``: take the link ``/web/db`` away, and leave both containers (NotFound, Conflict)."""
        parent, _, alias = name.strip("/").rpartition("/")
        if not parent:
            self.store.get(name)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        container = self.store.get(parent)
        if container.links.pop(alias, None) is None:
            raise NotFound(f"No such link: {name}")
        self._changed(container)

    def removed(self, target: Container) -> None:
        """A container is gone: links to it go with it."""
        for container in self.links.forget(target):
            self._changed(container)

    def started(self, target: Container) -> None:
        """A container has a new address: those that link to it are told."""
        for container in {c.id: c for c, _ in self.links.linking(target)}.values():
            if container.state.running:
                self.sandboxes.rewrite_files(container)
                self.store.save(container, durable=False)

    def _changed(self, container: Container) -> None:
        if container.state.running:
            self.sandboxes.rewrite_files(container)
        self.store.save(container)
