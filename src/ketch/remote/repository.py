"""One repository of one registry: its manifests, blobs and tags (OCI distribution-spec v1.1, Docker's v2 schema 2).

For Docker Hub's images the mirrors are asked first and told no credentials; what they cannot give comes from the Hub.
Manifests are verified here; of blobs the digest is the caller's to check, who sees the bytes anyway.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from yarl import URL

from ketch.errors import (
    DataLoss,
    InvalidArgument,
    KetchError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.remote import headers
from ketch.remote.bodies import joined, whole
from ketch.remote.errors import BREAKS, DENIED, LOG_IN, UNAUTHORIZED, RegistryError, denied, unreachable
from ketch.remote.transport import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from ketch.oci.reference import Reference
    from ketch.remote.credentials import Credentials
    from ketch.remote.endpoint import RegistryEndpoint
    from ketch.remote.transport import Transport

LARGEST_MANIFEST = 4 << 20
_ACCEPT = ", ".join((oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX))
_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_LONGEST_LIST = 64 << 20  # bytes of all pages of tags, each of which counts as so many at least:
_LEAST_PAGE = 16 << 10
_MOST_PLACES = 10  # of a foreign layer


class Fetched(NamedTuple):
    """A fetched manifest or index: its descriptor and its bytes."""

    descriptor: oci.Descriptor
    data: bytes


class _Kind(msgspec.Struct, rename="camel"):
    """The fields of a manifest that tell its type."""

    schema_version: int = 0
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()  # not taken apart: it may be large, and of any shape
    config: msgspec.Raw = msgspec.Raw()


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """One repository, made by `Remotes.repository`; ``endpoints`` are tried in order, the registry last."""

    def __init__(
        self,
        transport: Transport,
        endpoints: list[RegistryEndpoint],
        ref: Reference,
        credentials: Credentials | None,
        push: bool,
    ) -> None:
        self.transport = transport
        self._endpoints = endpoints
        self.reference = ref
        self._credentials = credentials
        self._scopes = (f"repository:{ref.path}:{'pull,push' if push else 'pull'}",)

    @property
    def name(self) -> str:
        """Domain and path in full."""
        return self.reference.repository

    async def reach(self) -> None:
        """Find out whether the registry answers (Unavailable)."""
        await self._endpoints[-1].base()

    @asynccontextmanager
    async def ask(
        self,
        request: Request,
        path: str | URL,
        *,
        endpoint: RegistryEndpoint | None = None,
        more_scopes: tuple[str, ...] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request to the registry (or to ``endpoint``), below ``/v2/REPOSITORY/``; RegistryError, Unavailable."""
        chosen = endpoint or self._endpoints[-1]
        target = path if isinstance(path, URL) else f"/v2/{self.reference.path}/{path}"
        credentials = None if chosen.mirror else self._credentials
        async with chosen.request(
            request, target, credentials=credentials, scopes=(*self._scopes, *more_scopes)
        ) as response:
            yield response

    @asynccontextmanager
    async def _read(self, request: Request, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a GET, to mirrors first."""
        async with AsyncExitStack() as stack:
            for endpoint in self._endpoints:
                try:
                    asked = self.ask(request, path, endpoint=endpoint)
                    response = await stack.enter_async_context(asked)
                    break
                except (RegistryError, KetchError):
                    if endpoint is self._endpoints[-1]:
                        raise
            yield response

    # -- manifests -----------------------------------------------------------------------------

    async def manifest(self, ref: str) -> Fetched:
        """A manifest by tag or digest, verified (NotFound, Unauthenticated, InvalidArgument, DataLoss, Unavailable)."""
        try:
            return await self.fetch(ref)
        except RegistryError as e:
            raise self._missing(e, ref) from e

    async def fetch(self, ref: str) -> Fetched:
        """The same, with the registry's own refusals (RegistryError)."""
        async with self._read(Request("GET", header={"Accept": _ACCEPT}), f"manifests/{ref}") as response:
            data = await whole(response, LARGEST_MANIFEST, f"manifest {ref}")
            declared, claimed = response.content_type, response.headers.get("Docker-Content-Digest", "")
        digest = digests.of(data)
        wanted = ref if digests.registered(ref) else claimed
        if digests.registered(wanted) and not digests.matches(wanted, data):
            raise DataLoss(
                f"manifest verification failed for digest {wanted}: got {digest}",
                hint="the registry, or something on the way to it, gives other bytes than it promises",
            )
        return Fetched(
            oci.Descriptor(media_type=manifest_type(data, declared, ref), digest=digest, size=len(data)), data
        )

    async def head(self, ref: str) -> oci.Descriptor | None:
        """The descriptor of a tag or digest, without fetching the manifest; None when there is none."""
        try:
            async with self.ask(Request("HEAD", header={"Accept": _ACCEPT}), f"manifests/{ref}") as response:
                digest = response.headers.get("Docker-Content-Digest", "")
                size = int(response.headers.get("Content-Length") or 0)
                if digests.valid(digest):
                    return oci.Descriptor(media_type=response.content_type, digest=digest, size=size)
        except RegistryError as e:
            if e.status == 404:
                return None
            raise self._missing(e, ref) from e
        return (await self.manifest(ref)).descriptor

    def _missing(self, error: RegistryError, ref: str) -> KetchError:
        """The error of a missing manifest, in Docker's words."""
        shown = self.reference.familiar_repository
        tag = f":{self.reference.tag}" if self.reference.tag else ""
        full = f"{shown}{tag}@{ref}" if digests.registered(ref) else f"{shown}:{ref}"
        if error.anonymous:
            return error.without_credentials("Get" if ref == "tags" else "Head")
        if error.is_denied:
            return NotFound(
                f"pull access denied for {shown}, repository does not exist or may require 'docker login': "
                f"{error.text or DENIED}"
            )
        if error.status == 401:
            return Unauthenticated(error.text or UNAUTHORIZED, hint=LOG_IN)
        if error.status == 404:
            if "NAME_UNKNOWN" in error.codes:
                return NotFound(error.text or "name unknown", hint=f"it is the repository {shown}")
            return NotFound(f"manifest for {full} not found: {error.text or 'manifest unknown: manifest unknown'}")
        return error.as_ketch()

    async def put_manifest(self, ref: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest, which the registry must agree with."""
        digest = digests.of(data)
        try:
            async with self.ask(
                Request("PUT", header={"Content-Type": media_type}, body=data, accepted=(201, 200, 202)),
                f"manifests/{ref}",
            ) as response:
                answered = response.headers.get("Docker-Content-Digest", digest)
        except RegistryError as e:
            raise denied(e) from e
        if answered != digest:
            raise DataLoss(f"push manifest {digest}: the registry has it as {answered}")
        return digest

    async def delete_manifest(self, digest: str) -> None:
        """Delete a manifest (NotFound; InvalidArgument: not supported by the registry)."""
        try:
            async with self.ask(Request("DELETE", accepted=(202, 200, 204)), f"manifests/{digest}"):
                pass
        except RegistryError as e:
            raise e.as_ketch(f"delete manifest {digest}") from e

    async def referrers(self, digest: str, artifact_type: str = "") -> list[oci.Descriptor]:
        """The referrers of a manifest (signatures and the like), by the API or the tag that replaces it."""
        path = f"referrers/{digest}" + (f"?artifactType={artifact_type}" if artifact_type else "")
        try:
            async with self.ask(Request("GET", header={"Accept": oci.INDEX}), path) as response:
                raw = await whole(response, LARGEST_MANIFEST, f"referrers of {digest}")
        except RegistryError as e:
            if e.status not in (404, 405):
                raise e.as_ketch(f"referrers of {digest}") from e
            try:
                raw = (await self.manifest(digest.replace(":", "-", 1))).data
            except NotFound:
                return []
        found: oci.Index = decode(raw, oci.Index, f"referrers of {digest}")
        return found.manifests

    async def tags(self) -> list[str]:
        """All tags in the registry's order, by a mirror's word when it has any (NotFound)."""
        for mirror in self._endpoints[:-1]:
            with suppress(RegistryError, KetchError):
                return await self._tags_at(mirror)
        try:
            return await self._tags_at(self._endpoints[-1])
        except RegistryError as e:
            raise self._missing(e, "tags") from e

    async def _tags_at(self, endpoint: RegistryEndpoint) -> list[str]:
        found: list[str] = []
        path: str | URL = f"/v2/{self.reference.path}/tags/list"
        asked: set[str | URL] = set()
        size = 0
        while path not in asked and size < _LONGEST_LIST:
            asked.add(path)
            credentials = None if endpoint.mirror else self._credentials
            async with endpoint.request(Request("GET"), path, credentials=credentials, scopes=self._scopes) as response:
                raw = await whole(response, LARGEST_MANIFEST, "list of tags")
                link = headers.next_link(response.headers.get("Link", ""))
                url = response.url
            size += len(raw) + _LEAST_PAGE
            found += decode(raw, _Tags, "list of tags").tags or []
            if link is None:
                return found
            path = joined(url, link)
        raise Unavailable(f"list tags of {self.name}: the list does not end")

    # -- blobs ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def blob(
        self, descriptor: oci.Descriptor, offset: int = 0
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """A blob from an offset on: (where the pieces begin, the pieces).

        A registry that does not do parts begins at 0.  The pieces raise Unavailable when the connection breaks or
        stalls, or the body is shorter than it said.
        """
        header = {"Range": f"bytes={offset}-"} if offset else {}
        async with AsyncExitStack() as stack:
            try:
                asked = self._read(
                    Request("GET", header=header, accepted=(200, 206, 416)), f"blobs/{descriptor.digest}"
                )
                response = await stack.enter_async_context(asked)
            except RegistryError as e:
                response = await self._elsewhere(stack, descriptor, header, e)
            if response.status == 416:
                response = await stack.enter_async_context(self._read(Request("GET"), f"blobs/{descriptor.digest}"))
            start = 0
            if response.status == 206:
                given = headers.range_of(response.headers.get("Content-Range", ""))
                if given is None or given[0] != offset:
                    raise Unavailable(
                        f"download {descriptor.digest}: the registry answers with another part than asked"
                    )
                start = offset
            yield start, _pieces(response)

    async def _elsewhere(
        self, stack: AsyncExitStack, descriptor: oci.Descriptor, header: dict[str, str], error: RegistryError
    ) -> aiohttp.ClientResponse:
        """A foreign layer from one of its URLs."""
        if error.status == 404:
            for path in (descriptor.urls or [])[:_MOST_PLACES]:
                try:
                    asked = self.transport.request(Request("GET", header, accepted=(200, 206)), joined(URL(), path))
                    return await stack.enter_async_context(asked)
                except (RegistryError, KetchError):
                    continue
            raise NotFound(f"blob {descriptor.digest} of {self.name}: {error.text or 'blob unknown'}") from error
        raise self._missing(error, descriptor.digest) from error

    async def blob_size(self, digest: str) -> int | None:
        """The size of a blob in the registry; None when it is missing."""
        try:
            async with self.ask(Request("HEAD"), f"blobs/{digest}") as response:
                return int(response.headers.get("Content-Length") or 0)
        except RegistryError as e:
            if e.status == 404:
                return None
            raise denied(e) from e

    async def mount(self, digest: str, source: str) -> bool:
        """Mount a blob from another repository (a path) of the registry; False when it refuses."""
        path = f"blobs/uploads/?mount={digest}&from={source}"
        try:
            async with self.ask(
                Request("POST", body=b"", accepted=(201, 202)), path, more_scopes=(f"repository:{source}:pull",)
            ) as response:
                opened = response.headers.get("Location") if response.status == 202 else None
                url = response.url
        except (RegistryError, KetchError):
            return False  # it is a short cut: the upload that follows says what is wrong
        if opened is None:
            return True
        try:
            async with self.ask(Request("DELETE", accepted=(204, 200, 202), attempts=1), joined(url, opened)):
                pass
        except (RegistryError, KetchError):
            pass  # the registry clears uploads that nobody goes on with away by itself
        return False


def decode(raw: bytes, kind: Any, what: str) -> Any:
    """Decode a registry's JSON (InvalidArgument)."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"{what}: the registry's answer cannot be read: {e}") from e


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    except BREAKS as e:
        raise unreachable(response.method, response.url, e) from e


def manifest_type(data: bytes, declared: str, ref: str) -> str:
    """The media type of a manifest: its own field's, else the answer's header's, else by its members."""
    kind: _Kind = decode(data, _Kind, f"manifest {ref}")
    if kind.schema_version == 1 or declared in _SCHEMA1:
        raise InvalidArgument(
            f"manifest {ref}: Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been "
            "removed",
            hint="the image has to be pushed again by a newer client",
        )
    known = oci.MANIFESTS | oci.INDEXES
    is_index = _given(kind.manifests)
    found = kind.media_type or (declared if declared in known else "")
    if not found:
        found = oci.INDEX if is_index else oci.MANIFEST if _given(kind.config) else declared
    if found not in known:
        raise InvalidArgument(f"manifest {ref}: unsupported manifest media type {found or 'unknown'}")
    if (found in oci.INDEXES) != (is_index and not _given(kind.config)):
        raise InvalidArgument(f"manifest {ref}: its content is not what its media type {found} says")
    return found


def _given(value: msgspec.Raw) -> bool:
    """Whether a member exists and is not null."""
    return bytes(value) not in (b"", b"null")
