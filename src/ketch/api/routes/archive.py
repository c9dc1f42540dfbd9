"""Files of containers: ``/containers/{id}/archive``, ``changes``, ``export``, and ``/commit``."""

from __future__ import annotations

import base64
from contextlib import aclosing
from typing import TYPE_CHECKING

from ketch.api import jsontext, query
from ketch.api.wire import gomode
from ketch.engine.model.records import ContainerConfig
from ketch.engine.model.requests import CommitOptions
from ketch.notation import times

if TYPE_CHECKING:
    from aiohttp import web

    from ketch.api.call import Call
    from ketch.engine.aio.tar_stream import TarStream
    from ketch.engine.model.path_stat import PathStat

_CHUNK = 1 << 18
# What has a year of four digits (RFC 3339): a container may give its files any time.
_FIRST, _LAST = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
_STAT = "X-Docker-Container-Path-Stat"


def path_stat(found: PathStat) -> str:
    """The header's value: base64 of JSON."""
    facts = {
        "name": found.name,
        "size": found.size,
        "mode": gomode.from_unix(found.mode),
        "mtime": times.rfc3339(min(max(found.mtime_ns, _FIRST), _LAST)),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(jsontext.encode(facts)).decode("ascii")


async def head(call: Call) -> web.StreamResponse:
    """Describe the file at a path."""
    found = await call.engine.files.stat(call.path["id"], query.path(call.request))
    response = call.empty(200)
    response.headers[_STAT] = path_stat(found)
    return response


async def get(call: Call) -> web.StreamResponse:
    """A path and all below it as a tar stream."""
    found, archive = await call.engine.files.archive(call.path["id"], query.path(call.request))
    return await _send(call, archive, "application/x-tar", {_STAT: path_stat(found)})


async def put(call: Call) -> web.StreamResponse:
    """Unpack a tar stream into a directory."""
    await call.engine.files.extract(
        call.path["id"],
        query.path(call.request),
        call.request.content.iter_chunked(_CHUNK),
        replace=not query.flag(call.query, "noOverwriteDirNonDir"),
        as_user=query.flag(call.query, "copyUIDGID"),
    )
    return call.empty(200)


async def export(call: Call) -> web.StreamResponse:
    """The container's root as a tar stream."""
    return await _send(call, await call.engine.files.export(call.path["id"]), "application/octet-stream", {})


async def changes(call: Call) -> web.StreamResponse:
    """The files that the container changed."""
    return await call.long_json(await call.engine.files.changes(call.path["id"]) or None)


async def _send(call: Call, archive: TarStream, content_type: str, headers: dict[str, str]) -> web.StreamResponse:
    """Send a tar stream; headers go out with the first chunk, so that an earlier error has its status."""
    async with aclosing(archive):
        chunks = aiter(archive)
        first = await anext(chunks, b"")
        response = await call.stream(content_type, headers=headers)
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    return response


async def commit(call: Call) -> web.StreamResponse:
    """A new image from a container."""
    raw = await call.request.read()
    call.check_content_type(raw)
    config: ContainerConfig | None = None
    if raw.strip() not in (b"", b"null"):
        config = await call.body(ContainerConfig)
    options = CommitOptions(
        repo=call.query.get("repo", ""),
        tag=call.query.get("tag", ""),
        comment=call.query.get("comment", ""),
        author=call.query.get("author", ""),
        pause=query.flag(call.query, "pause", True),
        changes=[value for key, value in call.query.items() if key == "changes"],
        config=config,
    )
    return call.json({"Id": await call.engine.commits.commit(call.query.get("container", ""), options)}, 201)


ROUTES = (
    ("HEAD", "/containers/{id}/archive", head),
    ("GET", "/containers/{id}/archive", get),
    ("PUT", "/containers/{id}/archive", put),
    ("GET", "/containers/{id}/changes", changes),
    ("GET", "/containers/{id}/export", export),
    ("POST", "/commit", commit),
)
