"""The target of an import: what Ketch has already."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.cli.importing.likeness import likeness
from ketch.cli.importing.streams import archive_of
from ketch.errors import NotFound

if TYPE_CHECKING:
    import tarfile

    from ketch.cli.importing.likeness import Likeness
    from ketch.client.http import Client
    from ketch.notation.api_objects import ApiObject

_LEFTOVER = re.compile(r"\.ketch-restore-[0-9a-f]{16}\Z")  # what an interrupted copy leaves; the next one removes it


class Ours:
    """A ketchd, into which is imported."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._seen: dict[str, Likeness] = {}  # by id
        self._named: dict[str, Likeness] = {}
        self._images: dict[Likeness, str] = {}
        self.look_again()
        rows = client.request("GET", "/containers/json", {"all": True}).json()
        self._containers = {name.lstrip("/") for row in rows for name in row["Names"]}

    def look_again(self) -> None:
        """Learn which images there are by now."""
        self._named, self._images = {}, {}
        for row in self.client.request("GET", "/images/json", {"all": True}).json():
            ident = row["Id"]
            with suppress(NotFound):  # it has been removed meanwhile
                if ident not in self._seen:
                    self._seen[ident] = likeness(self.client.request("GET", f"/images/{ident}/json").json())
                self._images[self._seen[ident]] = ident
                self._named |= dict.fromkeys(row.get("RepoTags") or (), self._seen[ident])

    @property
    def here(self) -> bool:
        """Whether it is on this machine, as far as its address tells."""
        return self.client.host.startswith("unix://")

    def image_named(self, name: str) -> Likeness | None:
        """The image that has this name."""
        return self._named.get(name)

    def has_image(self, alike: Likeness) -> bool:
        """Whether there is such an image."""
        return alike in self._images

    def image_id(self, alike: Likeness) -> str:
        """The id of such an image (NotFound)."""
        if alike not in self._images:
            raise NotFound("its image was loaded, and is not there")
        return self._images[alike]

    def _facts(self, path: str) -> ApiObject | None:
        try:
            found: ApiObject = self.client.request("GET", path).json()
        except NotFound:
            return None
        return found

    def network(self, name: str) -> ApiObject | None:
        """The network of this name."""
        found = self.client.request("GET", "/networks").json()
        return next((facts for facts in found if facts["Name"] == name), None)

    def network_names(self) -> list[str]:
        """The names of all networks."""
        return [facts["Name"] for facts in self.client.request("GET", "/networks").json()]

    def volume(self, name: str) -> ApiObject | None:
        """The volume of this name."""
        return self._facts(f"/volumes/{name}")

    def volume_names(self) -> list[str]:
        """The names of all volumes."""
        return [facts["Name"] for facts in self.client.request("GET", "/volumes").json()["Volumes"] or ()]

    def is_unfilled(self, name: str) -> bool:
        """Whether a volume has nothing in it, but for what interrupted copies have left."""
        response = self.client.request("GET", f"/ketch/volumes/{name}/archive", stream=True)
        try:
            with archive_of(response.iter_chunks(), f"volume {name}") as archive:
                return _is_unfilled(archive)
        finally:
            response.close()

    def has_container(self, name: str) -> bool:
        """Whether there is a container of this name."""
        return name in self._containers


def _is_unfilled(archive: tarfile.TarFile) -> bool:
    """Whether all entries below the root are what interrupted copies leave."""
    tops = (member.name.removeprefix("./").partition("/")[0] for member in archive)
    return all(top in ("", ".") or _LEFTOVER.match(top) for top in tops)
