"""Changes of legacy links while containers run: their /etc/hosts is rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.errors import NotFound, UnclassifiedArgument

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes


class LinkChanges(Struct, frozen=True, eq=False):
    """Handles changes of links and of their targets."""

    store: ContainerStore
    links: Links
    sandboxes: Sandboxes

    async def remove(self, name: str) -> None:
        """``docker rm --link``: remove the link ``/web/db``, and leave both containers (NotFound, InvalidArgument)."""
        parent, _, alias = name.strip("/").rpartition("/")
        if not parent:
            self.store.get(name)
            raise UnclassifiedArgument("Conflict, cannot remove the default link name of the container")
        container = self.store.get(parent)
        if container.links.pop(alias, None) is None:
            raise NotFound(f"No such container: {name.strip('/')}", hint="nor such a link")
        self._changed(container)

    def removed(self, target: Container) -> None:
        """Remove the links to a removed container."""
        for container in self.links.forget(target):
            self._changed(container)

    def started(self, target: Container) -> None:
        """Update the containers that link to a container with a new address."""
        for container in {c.id: c for c, _ in self.links.linking(target)}.values():
            if container.state.running:
                self.sandboxes.rewrite_files(container)
                self.store.save(container, durable=False)

    def _changed(self, container: Container) -> None:
        if container.state.running:
            self.sandboxes.rewrite_files(container)
        self.store.save(container)
