"""A Ketch that has nothing yet, as far as a plan of an import asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Nothing:
    """A Ketch that has nothing yet."""

    here = True

    def image_named(self, _name: str) -> None:
        return None

    def has_image(self, _alike: object) -> bool:
        return False

    def has_container(self, _name: str) -> bool:
        return False

    def network(self, _name: str) -> None:
        return None

    def volume(self, _name: str) -> None:
        return None

    def volume_names(self) -> Iterator[str]:
        return iter(())

    network_names = volume_names
