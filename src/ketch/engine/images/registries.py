"""Registries for the API: login, search, inspection of an image without pulling it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

import msgspec

from ketch.errors import InvalidArgument, KetchError, NotFound, UnclassifiedArgument
from ketch.notation import integers
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.oci.config import ImageConfig
from ketch.remote.client import Remotes
from ketch.remote.errors import RegistryError, denied
from ketch.remote.repository import decode
from ketch.remote.search import search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.remote.credentials import Credentials
    from ketch.remote.search import Result
    from ketch.remote.settings import Settings

_LARGEST_CONFIG = 8 << 20
_BOOLEANS = {"0": False, "false": False, "1": True, "true": True}
_DEFAULT_RESULTS, _MOST_RESULTS = 25, 100


class Distribution(msgspec.Struct, rename="pascal", frozen=True):
    """The content behind a reference in its registry, as ``GET /distribution`` answers it."""

    descriptor: oci.Descriptor
    platforms: list[oci.Platform]


class RegistryHost(TypedDict):
    """One registry in `RegistryInfo`."""

    Name: str
    Mirrors: list[str]
    Secure: bool
    Official: bool


class RegistryInfo(TypedDict):
    """``RegistryConfig`` of ``GET /info``."""

    InsecureRegistryCIDRs: list[str]
    IndexConfigs: dict[str, RegistryHost]
    Mirrors: list[str] | None


class Registries:
    """The client of registries, with limits on concurrent requests."""

    def __init__(self, settings: Settings, max_downloads: int = 3, max_uploads: int = 5) -> None:
        self.settings = settings
        self.max_downloads, self.max_uploads, self.attempts = max_downloads, max_uploads, settings.attempts
        self.remotes = Remotes(settings)

    def change(self, settings: Settings) -> None:
        """Use other settings from now on; transfers under way go on as they began, and their limits stay."""
        self.settings = settings
        self.remotes.change(settings)

    async def close(self) -> None:
        """End all connections."""
        await self.remotes.close()

    async def login(self, credentials: Credentials) -> dict[str, str]:
        """The answer of ``POST /auth`` (Unauthenticated, Unavailable)."""
        identity = await self.remotes.login(credentials)
        return {"Status": "Login Succeeded", "IdentityToken": identity}

    async def distribution(self, name: str, credentials: Credentials | None) -> Distribution:
        """The descriptor and the platforms of a reference in its registry."""
        if re.fullmatch("(sha256:)?[0-9a-f]{64}", name):
            raise UnclassifiedArgument("no manifest found for full image ID")
        ref = reference.parse(name)
        repository = self.remotes.repository(ref, credentials)
        try:
            found = await repository.fetch(ref.digest or ref.tag)
        except RegistryError as e:
            raise _not_inspected(e) from e
        if found.descriptor.media_type in oci.INDEXES:
            index: oci.Index = decode(found.data, oci.Index, f"index of {name}")
            platforms = [d.platform for d in index.manifests if d.platform is not None]
        else:
            manifest: oci.Manifest = decode(found.data, oci.Manifest, f"manifest of {name}")
            if manifest.config.size > _LARGEST_CONFIG:
                raise InvalidArgument(f"inspect {name}: its configuration is larger than {_LARGEST_CONFIG} bytes")
            raw = b""
            if manifest.config.media_type in oci.CONFIGS:
                async with repository.blob(manifest.config) as (_, pieces):
                    async for piece in pieces:
                        raw += piece
            config: ImageConfig | None = decode(raw, ImageConfig, f"configuration of {name}") if raw else None
            platforms = (
                []
                if config is None
                else [oci.Platform(architecture=config.architecture, os=config.os, variant=config.variant)]
            )
        return Distribution(found.descriptor, platforms)

    async def search(
        self, term: str, limit: int, filters: Mapping[str, list[str]], credentials: Credentials | None
    ) -> list[Result]:
        """The rows of ``docker search``."""
        keep = _predicate(filters)
        if not term:
            raise InvalidArgument("search: no term given")
        if not 0 <= limit <= _MOST_RESULTS:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, {_MOST_RESULTS}]")
        found = await search(self.remotes, term, limit or _DEFAULT_RESULTS, credentials)
        return [result for result in found if keep(result)]

    def info(self) -> RegistryInfo:
        """``RegistryConfig`` of ``GET /info``."""
        named = [host for host in self.settings.insecure if "/" not in host]
        ranges = ["::1/128", "127.0.0.0/8", *(text for text in self.settings.insecure if "/" in text)]
        mirrors = [url.rstrip("/") + "/" for url in self.settings.mirrors]
        hosts: dict[str, RegistryHost] = {
            reference.DEFAULT_DOMAIN: {
                "Name": reference.DEFAULT_DOMAIN,
                "Mirrors": mirrors,
                "Secure": True,
                "Official": True,
            }
        }
        for host in named:
            hosts[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
        return {
            "InsecureRegistryCIDRs": ranges,
            "IndexConfigs": hosts,
            "Mirrors": mirrors or None,
        }


def _not_inspected(error: RegistryError) -> KetchError:
    """The error of a manifest that a registry does not give, in Docker's words."""
    if error.anonymous:
        return error.without_credentials("Head")
    if error.status == 404:
        return NotFound(error.text or "manifest unknown: manifest unknown")
    return denied(error)


def _predicate(filters: Mapping[str, list[str]]) -> Callable[[Result], bool]:
    known = ("is-automated", "is-official", "stars")
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", hint=f"known: {', '.join(known)}")
    wanted = {name: _flags(name, filters[name]) for name in known[:2] if name in filters}
    counts = []
    for value in filters.get("stars", ()):
        try:
            counts.append(integers.signed(value))
        except integers.NotAnIntegerError as e:
            raise InvalidArgument(f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": {e}") from e
    least = max(counts, default=0)

    def keep(result: Result) -> bool:
        return (
            result.star_count >= least
            and result.is_automated in wanted.get("is-automated", (True, False))
            and result.is_official in wanted.get("is-official", (True, False))
        )

    return keep


def _flags(name: str, values: list[str]) -> tuple[bool]:
    """The value of a yes-or-no filter that may be given once, or twice with the same."""
    found = {_BOOLEANS[value] for value in values if value in _BOOLEANS}
    if len(found) != 1:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'", hint="use true or false")
    return (found.pop(),)
