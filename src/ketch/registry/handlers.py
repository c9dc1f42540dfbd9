"""``/v2/``: manifests, blobs, tags, referrers, the catalog (distribution-spec v1.1 §endpoints)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from ketch.notation import digits
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.registry import names
from ketch.registry.errors import (
    BLOB_UNKNOWN,
    DIGEST_INVALID,
    MANIFEST_INVALID,
    MANIFEST_UNKNOWN,
    NAME_UNKNOWN,
    PAGINATION_INVALID,
    TAG_INVALID,
    Refused,
)
from ketch.registry.objects import store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.registry.call import RegistryCall

LARGEST_MANIFEST = 4 << 20
_LARGEST_INDEX = LARGEST_MANIFEST - 1024  # of its entries
_MOST_TAGS = 100
_DEFAULT_PAGE, _LARGEST_PAGE = 1000, 10_000
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+\Z", re.ASCII)


def _reference(text: str) -> str:
    return names.digest(text) if ":" in text else names.tag(text)


# -- manifests ---------------------------------------------------------------------------------


async def get_manifest(call: RegistryCall, ref: str) -> web.StreamResponse:
    """GET and HEAD, by tag or digest."""
    _reference(ref)
    cache = call.cache
    found = await (cache.manifest(call.name, ref) if cache else call.repositories.manifest(call.name, ref))
    if found is None:
        raise Refused(MANIFEST_UNKNOWN, {"reference": ref})
    headers = {"Docker-Content-Digest": found.digest, "ETag": f'"{found.digest}"'}
    wanted = call.request.headers.get("If-None-Match", "")
    if wanted and found.digest in wanted:
        return call.empty(304, headers)
    return call.data(found.data, found.media_type, headers)


async def put_manifest(call: RegistryCall, ref: str) -> web.StreamResponse:
    """PUT, under a tag or its digest."""
    _reference(ref)
    media_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    if not _MEDIA_TYPE.match(media_type):
        raise Refused(MANIFEST_INVALID, "the request has no Content-Type")
    data = await call.body(LARGEST_MANIFEST)
    digest, tags = _named(call, ref)
    if digest and not digests.matches(digest, data):
        raise Refused(DIGEST_INVALID, digest)
    digest, subject = await call.repositories.put_manifest(call.name, data, media_type, tags, digest=digest)
    headers = {"Location": f"/v2/{call.name}/manifests/{digest}", "Docker-Content-Digest": digest}
    response = call.empty(201, {**headers, **({"OCI-Subject": subject} if subject else {})})
    for tag in tags if ":" in ref else ():
        response.headers.add("OCI-Tag", tag)
    return response


def _named(call: RegistryCall, ref: str) -> tuple[str, list[str]]:
    """The digest (empty: sha256) and the tags to store a manifest by: of the path, and of the query."""
    query = call.request.query
    if ":" in ref:
        tags = [names.tag(tag) for tag in query.getall("tag", [])]
        if len(tags) > _MOST_TAGS:
            raise Refused(TAG_INVALID, f"{len(tags)} tags in one request, at most {_MOST_TAGS} are set at once")
        return ref, tags
    return names.digest(query["digest"]) if "digest" in query else "", [ref]


async def delete_manifest(call: RegistryCall, ref: str) -> web.StreamResponse:
    """DELETE: a tag alone, or a manifest with all its tags."""
    _reference(ref)
    delete = call.repositories.delete_manifest if ":" in ref else call.repositories.delete_tag
    if not await delete(call.name, ref):
        raise Refused(MANIFEST_UNKNOWN, {"reference": ref})
    return call.empty(202)


async def get_referrers(call: RegistryCall, digest: str) -> web.StreamResponse:
    """The referrers of a manifest, as an index of at most a manifest's size: the rest is another page."""
    names.digest(digest)
    kind, last = call.request.query.get("artifactType", ""), call.request.query.get("last", "")
    headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
    found: list[msgspec.Raw] = []
    size = 0
    async for referrer in call.repositories.referrers(call.name, digest, names.digest(last) if last else ""):
        descriptor = await call.repositories.referrer(call.name, digest, referrer)
        if not descriptor or (kind and msgspec.json.decode(descriptor).get("artifactType") != kind):
            continue
        size += len(descriptor) + 1
        if found and size > _LARGEST_INDEX:
            query = urlencode({"last": last, **({"artifactType": kind} if kind else {})})
            headers["Link"] = f'<{call.request.path}?{query}>; rel="next"'
            break
        found.append(msgspec.Raw(descriptor))
        last = referrer
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": found}
    return call.data(msgspec.json.encode(body), oci.INDEX, headers)


# -- blobs -------------------------------------------------------------------------------------


async def get_blob(call: RegistryCall, digest: str) -> web.StreamResponse:
    """GET: by sendfile(2) where there is a file and no TLS, parts of it as asked."""
    names.digest(digest)
    size = await call.repositories.readable(call.name, digest)
    if size is None:
        return await _from_upstream(call, digest)
    headers = {
        "Docker-Content-Digest": digest,
        "Content-Type": "application/octet-stream",
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000",
        "Accept-Ranges": "bytes",
    }
    key = store.blob(digest)
    path = call.store.path(key)
    if path is not None:
        return web.FileResponse(path, chunk_size=1 << 20, headers=headers)
    start, end = _part(call.request.headers.get("Range"), size)
    partial = (start, end) != (0, size) or "Range" in call.request.headers
    headers["Content-Length"] = str(end - start)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return await call.stream(206 if partial else 200, headers, call.store.read(key, start, end))


async def head_blob(call: RegistryCall, digest: str) -> web.StreamResponse:
    """HEAD: whether the blob exists, for clients that will rely on it."""
    names.digest(digest)
    size = await call.repositories.blob_size(call.name, digest)
    if size is None and call.cache is not None:
        fetch = await call.cache.blob(call.name, digest)
        size = fetch.size if fetch is not None else None
    if size is None:
        raise Refused(BLOB_UNKNOWN, {"digest": digest})
    headers = {
        "Docker-Content-Digest": digest,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
    }
    return call.empty(200, headers)


async def _from_upstream(call: RegistryCall, digest: str) -> web.StreamResponse:
    fetch = await call.cache.blob(call.name, digest) if call.cache else None
    if fetch is None:
        raise Refused(BLOB_UNKNOWN, {"digest": digest})
    if not fetch.can_follow or "Range" in call.request.headers:
        await fetch.task
        return await get_blob(call, digest)
    headers = {
        "Docker-Content-Digest": digest,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(fetch.size),
    }
    return await call.stream(200, headers, fetch.follow())


def _part(text: str | None, size: int) -> tuple[int, int]:
    """The range of ``Range`` (416: outside the blob); all for a header that is not understood."""
    match = _RANGE.match(text or "")
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def delete_blob(call: RegistryCall, digest: str) -> web.StreamResponse:
    """DELETE: removes the blob from the repository; garbage collection deletes the bytes."""
    names.digest(digest)
    if not await call.repositories.unlink(call.name, digest):
        raise Refused(BLOB_UNKNOWN, {"digest": digest})
    return call.empty(202)


# -- lists -------------------------------------------------------------------------------------


async def get_tags(call: RegistryCall) -> web.StreamResponse:
    """The tags of a repository, in order, a page at a time."""
    if not await call.repositories.exists(call.name):
        raise Refused(NAME_UNKNOWN, {"name": call.name})
    page = await _page(call, call.repositories.tags(call.name, call.request.query.get("last", "")))
    return _listed(call, {"name": call.name, "tags": page[0]}, page)


async def get_catalog(call: RegistryCall) -> web.StreamResponse:
    """The names of the repositories that have something, a page at a time."""
    page = await _page(call, call.repositories.with_manifests(call.request.query.get("last", "")))
    return _listed(call, {"repositories": page[0]}, page)


async def _page(call: RegistryCall, found: AsyncIterator[str]) -> tuple[list[str], int | None]:
    """One page of names: (names, the page's size if there are more)."""
    text = call.request.query.get("n")
    wanted = digits.whole(text) if text is not None else _DEFAULT_PAGE
    if wanted is None:
        raise Refused(PAGINATION_INVALID, {"n": text[:40] if text else ""})
    size = min(wanted, _LARGEST_PAGE)
    page: list[str] = []
    async for name in found:
        if len(page) == size:
            return page, size or None
        page.append(name)
    return page, None


def _listed(call: RegistryCall, body: dict[str, object], page: tuple[list[str], int | None]) -> web.StreamResponse:
    headers = {}
    if page[1]:
        headers["Link"] = f'<{call.request.path}?n={page[1]}&last={quote(page[0][-1], safe="")}>; rel="next"'
    return call.data(msgspec.json.encode(body), "application/json", headers)
