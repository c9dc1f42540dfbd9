"""The source of an import: a Docker whose daemon answers, or its files; facts are in the form of Docker's API."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ketch.errors import Conflict, KetchError, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.notation.api_objects import ApiObject

IMAGE, VOLUME, NETWORK, CONTAINER = KINDS = ("image", "volume", "network", "container")
_OF_ALL = (Unavailable, Conflict, PermissionDenied)  # errors that concern the whole Docker


class Unreadable:
    """The parts of a Docker that cannot be read; ``reasons`` are by kind and name (of an image: its id)."""

    def __init__(self) -> None:
        self.reasons: dict[tuple[str, str], str] = {}

    @contextmanager
    def noted(self, kind: str, name: str) -> Iterator[None]:
        """Have an error in reading this part noted; one that concerns all parts is raised."""
        try:
            yield
        except _OF_ALL:
            raise
        except KetchError as e:
            self.reasons[kind, name] = e.message + (f" ({e.hint})" if e.hint else "")


class Docker(Protocol):
    """A Docker, which is read and never changed; lists leave out what cannot be read."""

    @property
    def unreadable(self) -> Unreadable:
        """The parts that the lists so far have left out."""
        ...

    @property
    def here(self) -> bool:
        """Whether the paths of its volumes are paths of this machine."""
        ...

    @property
    def runs(self) -> bool:
        """Whether its daemon runs, on this machine."""
        ...

    def images(self) -> list[ApiObject]:
        """Its images, as ``GET /images/json`` lists them."""
        ...

    def image(self, image_id: str) -> ApiObject:
        """One image, as it is inspected (NotFound)."""
        ...

    def archive(self, image_id: str, names: list[str]) -> Iterator[bytes]:
        """An archive of an image under these names, or under none."""
        ...

    def volumes(self) -> list[ApiObject]:
        """Its volumes."""
        ...

    def volume_sizes(self) -> dict[str, int]:
        """The bytes in each volume of which it is known."""
        ...

    def networks(self) -> list[ApiObject]:
        """Its networks, those that Docker makes by itself among them."""
        ...

    def containers(self) -> list[ApiObject]:
        """Its containers, as they are inspected; ``Config.MacAddress`` is the address that was asked for."""
        ...

    def changes(self, container_id: str) -> list[ApiObject]:
        """The paths in a container's root that differ from its image."""
        ...

    def export(self, container_id: str) -> Iterator[bytes]:
        """The files of a container's root, as tar."""
        ...
