"""``/v2/NAME/blobs/uploads/``: uploads in one piece or in chunks, which any process continues, and mounts."""

from __future__ import annotations

import re
import secrets
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING

from ketch.registry import names
from ketch.registry.auth import Access
from ketch.registry.errors import (
    BLOB_UPLOAD_INVALID,
    BLOB_UPLOAD_UNKNOWN,
    DIGEST_INVALID,
    RANGE_INVALID,
    Refused,
)
from ketch.registry.objects import store
from ketch.registry.objects.store import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from ketch.registry.call import RegistryCall

_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/\S+)?\Z", re.ASCII)
_busy: set[str] = set()


async def begin(call: RegistryCall) -> web.StreamResponse:
    """POST: mount a blob, accept a whole one, or begin an upload."""
    name, query = call.name, call.request.query
    if "mount" in query and (mounted := await _mount(call, query["mount"], query.get("from", ""))):
        return mounted
    if "digest" in query:
        names.digest(query["digest"])
    upload = secrets.token_hex(16)
    await call.store.put(f"uploads/{upload}/repository", name.encode())
    if "digest" not in query:
        return _status(call, upload, 0, 202)
    await _append(call, upload, 0)
    return await _finish(call, upload, query["digest"])


async def _mount(call: RegistryCall, digest: str, source: str) -> web.StreamResponse | None:
    names.digest(digest)
    if not source:
        return None
    names.repository(source)
    try:
        await call.allow(Access("repository", source, "pull"))
    except Refused:
        return None  # as if it were not there: the client uploads it
    if await call.repositories.blob_size(source, digest) is None:
        return None
    await call.repositories.link(call.name, digest)
    return _created(call, digest)


async def look(call: RegistryCall, upload: str) -> web.StreamResponse:
    """GET: the bytes received."""
    await _check(call, upload)
    return _status(call, upload, await call.store.length(upload), 204)


async def add(call: RegistryCall, upload: str) -> web.StreamResponse:
    """PATCH: a chunk, which begins where the last one ended."""
    await _check(call, upload)
    length = await call.store.length(upload)
    _check_range(call, upload, length)
    return _status(call, upload, await _append(call, upload, length), 202)


async def finish(call: RegistryCall, upload: str) -> web.StreamResponse:
    """PUT: the rest, if any, and the digest of the whole."""
    await _check(call, upload)
    digest = names.digest(call.request.query.get("digest", ""))
    if call.request.can_read_body and call.request.content_length != 0:
        length = await call.store.length(upload)
        _check_range(call, upload, length)
        await _append(call, upload, length)
    elif await call.store.length(upload) == 0:
        await _append(call, upload, 0)  # the empty blob
    return await _finish(call, upload, digest)


async def cancel(call: RegistryCall, upload: str) -> web.StreamResponse:
    """DELETE: cancel the upload."""
    await _check(call, upload)
    await call.store.discard(upload)
    return call.empty(204)


async def _check(call: RegistryCall, upload: str) -> None:
    names.upload(upload)
    try:
        owner = (await call.store.get(f"uploads/{upload}/repository")).decode()
    except ObjectMissing:
        owner = ""
    if owner != call.name:
        raise Refused(BLOB_UPLOAD_UNKNOWN, upload)


def _check_range(call: RegistryCall, upload: str, length: int) -> None:
    text = call.request.headers.get("Content-Range")
    if text is None:
        return
    match = _RANGE.match(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise Refused(BLOB_UPLOAD_INVALID, f"Content-Range `{text[:80]}`")
    size = call.request.content_length
    if int(match[1]) != length or (size is not None and size != int(match[2]) - int(match[1]) + 1):
        raise Refused(RANGE_INVALID, f"{length} bytes are here", headers=_headers(call, upload, length))


async def _append(call: RegistryCall, upload: str, offset: int) -> int:
    if upload in _busy:
        raise Refused(BLOB_UPLOAD_INVALID, "another request is writing to this upload")
    _busy.add(upload)
    call.metrics.values["uploads"] += 1
    try:
        return await call.store.append(upload, offset, _counted(call, call.request.content.iter_any()))
    except OSError as e:
        if e.errno in (ENOSPC, EDQUOT):  # what there is of it must not keep others from theirs
            await call.store.discard(upload)
        raise
    finally:
        _busy.discard(upload)
        call.metrics.values["uploads"] -= 1


async def _counted(call: RegistryCall, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        call.metrics.bytes["in"] += len(piece)
        call.bytes_in += len(piece)
        yield piece


async def _finish(call: RegistryCall, upload: str, digest: str) -> web.StreamResponse:
    await call.repositories.claim(digest)
    if not await call.store.finish(upload, digest, store.blob(digest)):
        await call.store.discard(upload)
        raise Refused(DIGEST_INVALID, digest)
    await call.repositories.link(call.name, digest)
    return _created(call, digest)


def _created(call: RegistryCall, digest: str) -> web.StreamResponse:
    headers = {"Location": f"/v2/{call.name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return call.empty(201, headers)


def _headers(call: RegistryCall, upload: str, length: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{call.name}/blobs/uploads/{upload}",
        "Range": f"0-{max(length - 1, 0)}",
        "Docker-Upload-UUID": upload,
    }


def _status(call: RegistryCall, upload: str, length: int, status: int) -> web.StreamResponse:
    return call.empty(status, _headers(call, upload, length))
