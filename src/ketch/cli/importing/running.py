"""A Docker whose daemon answers, read through its API."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ketch.cli.importing import forms
from ketch.cli.importing.forms import understood
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME, Unreadable
from ketch.client.http import Client
from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.notation.api_objects import ApiObject

_WITH_MAC = "/v1.43"  # the last version that tells which hardware address was asked for


class RunningDocker:
    """A dockerd at an address (`source.Docker`); only requests that change nothing are sent."""

    def __init__(self, host: str) -> None:
        self.host, self.unreadable = host, Unreadable()
        self._client = Client(host)
        server = self._client.request("GET", "/_ping").headers.get("server", "")
        if server.startswith("Ketch"):
            raise InvalidArgument(
                f"import from {host}: it is ketchd that answers there", hint="name Docker's own socket with --from"
            )

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return self.host.startswith("unix://")

    @property
    def runs(self) -> bool:
        """Whether its networks are here, too."""
        return self.here

    def _get(self, path: str, **query: object) -> ApiObject:
        found: ApiObject = self._client.request("GET", path, query).json()
        return found

    def _list(self, path: str, **query: object) -> list[ApiObject]:
        found: list[ApiObject] = self._client.request("GET", path, query).json()
        return found

    def _read(
        self, kind: str, named: str, rows: list[ApiObject], form: Callable[[ApiObject], ApiObject]
    ) -> list[ApiObject]:
        """The rows of a list that have the form of their kind; ``named`` is the field by which others are noted."""
        found = []
        for row in rows:
            name = str(row.get(named))
            with self.unreadable.noted(kind, name), understood(name):
                found.append(form(row))
        return found

    def images(self) -> list[ApiObject]:
        """Its images, also those without a name upon which others were built: containers may be of such."""
        return self._read(IMAGE, "Id", self._list("/images/json", all=True), forms.image_row)

    def image(self, image_id: str) -> ApiObject:
        """One image (NotFound)."""
        with understood(image_id):
            return forms.image(self._get(f"/images/{image_id}/json"))

    def archive(self, image_id: str, names: list[str]) -> Iterator[bytes]:
        """An archive as ``docker save`` writes it."""
        query = {"names": names or [image_id]}
        return self._client.request("GET", "/images/get", query, stream=True).iter_chunks()

    def volumes(self) -> list[ApiObject]:
        """Its volumes."""
        return self._read(VOLUME, "Name", self._get("/volumes")["Volumes"] or [], forms.volume)

    def volume_sizes(self) -> dict[str, int]:
        """The bytes in each volume; it reads all their directories."""
        usage = self._get("/system/df", type="volume")["Volumes"] or []
        sizes = {volume["Name"]: (volume.get("UsageData") or {}).get("Size", -1) for volume in usage}
        return {name: size for name, size in sizes.items() if size >= 0}

    def networks(self) -> list[ApiObject]:
        """Its networks."""
        return self._read(NETWORK, "Name", self._list("/networks"), forms.network)

    def containers(self) -> list[ApiObject]:
        """Its containers; one that is removed meanwhile is left out."""
        found = []
        for row in self._list("/containers/json", all=True):
            name = row["Names"][0].lstrip("/") if row["Names"] else row["Id"]
            with self.unreadable.noted(CONTAINER, name), suppress(NotFound), understood(name):
                facts = self._get(f"/containers/{row['Id']}/json")
                facts["Config"]["MacAddress"] = self._mac(row["Id"])
                found.append(forms.container(facts))
        return found

    def _mac(self, container_id: str) -> str:
        try:
            config = self._get(f"{_WITH_MAC}/containers/{container_id}/json")["Config"]
        except InvalidArgument:  # a daemon that does not speak that version any more
            return ""
        return config.get("MacAddress") or ""

    def changes(self, container_id: str) -> list[ApiObject]:
        """The paths that differ, with the kind of each change."""
        return self._list(f"/containers/{container_id}/changes") or []

    def export(self, container_id: str) -> Iterator[bytes]:
        """All files of its root."""
        return self._client.request("GET", f"/containers/{container_id}/export", stream=True).iter_chunks()
