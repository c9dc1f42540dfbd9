"""The ``/images`` endpoints, and Ketch's own ``/ketch/images/bootstrap``."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from ketch.api import dry_run, jsontext, platforms, query, versions
from ketch.api.errors import INTERNAL, body_of, from_registry, message_of, prefixed
from ketch.api.streams import while_connected
from ketch.api.wire import attestations as wire_attestations
from ketch.api.wire import df as wire_df
from ketch.api.wire import filters, manifests, prunes
from ketch.api.wire import images as wire
from ketch.engine import os_errors
from ketch.engine.model.requests import ImportOptions
from ketch.errors import (
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    KetchError,
    PlatformMismatch,
    UnclassifiedArgument,
)
from ketch.remote.credentials import from_header

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import web

    from ketch.api.call import Call
    from ketch.images.progress import ProgressItem

log = logging.getLogger(__name__)
_CHUNK = 1 << 18


async def list_(call: Call) -> web.StreamResponse:
    """The rows of ``images``."""
    chosen = query.filters(call.query)
    if pattern := versions.old_filter(call.query, call.version):
        chosen.setdefault("reference", []).append(pattern)
    predicate = filters.image_predicate(call.engine, chosen)
    dangling = filters.booleans_of(chosen, "dangling", False)
    everything = query.flag(call.query, "all") and not dangling
    images = call.engine.images.list(everything=everything)
    made = wire.containers_by_image(call.engine) if call.version >= versions.COUNTED_CONTAINERS else None
    rows = [
        wire.row(call.engine, image, made[image.id] if made is not None else -1) for image in images if predicate(image)
    ]
    if query.flag(call.query, "shared-size"):
        sizes = dict(zip((image.id for image in images), wire_df.shared_sizes(images), strict=True))
        for row in rows:
            row["SharedSize"] = sizes[row["Id"]]
    detailed = query.flag(call.query, "manifests")
    if call.version >= manifests.SINCE or detailed:
        for row in rows:
            manifests.complete(call.engine, row, detailed=detailed)
    if patterns := chosen.get("reference"):  # of an image with several names, those that were asked for
        for row in rows:
            row["RepoTags"] = [tag for tag in row["RepoTags"] if filters.refers(tag, patterns)]
            repositories = {tag.rpartition(":")[0] for tag in row["RepoTags"]}
            row["RepoDigests"] = [d for d in row["RepoDigests"] if d.partition("@")[0] in repositories]
    return call.json([versions.shown_image_row(row, call.version) for row in rows])


async def inspect(call: Call) -> web.StreamResponse:
    """Everything about one image, or about its variant for a platform."""
    chosen, detailed = platforms.one(call.query), query.flag(call.query, "manifests")
    if chosen and detailed:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    answer = wire.inspect(call.engine, call.engine.images.get(call.path["name"], chosen))
    if call.version >= manifests.SINCE:
        manifests.complete(call.engine, answer, detailed=detailed, one=bool(chosen))
    return call.json(versions.shown_image(answer, call.version))


async def attestations(call: Call) -> web.StreamResponse:
    """The statements about an image that are here."""
    if len(call.query.getall("platform", [])) > 1:
        raise InvalidArgument("only one platform can be specified", hint="ask for one after the other")
    kinds, whole = call.query.getall("type", []), query.flag(call.query, "statement")
    return call.json(
        wire_attestations.statements(call.engine, call.path["name"], platforms.one(call.query), kinds, whole=whole)
    )


async def history(call: Call) -> web.StreamResponse:
    """The steps by which the image was made."""
    return call.json(call.engine.images.history(call.path["name"], platforms.one(call.query)))


async def tag(call: Call) -> web.StreamResponse:
    """Add a name to an image."""
    repo = call.query.get("repo", "")
    if not repo:
        raise InvalidArgument("invalid reference format: repository name must not be empty")
    try:
        call.engine.images.get(call.path["name"])
    except InvalidArgument as e:  # what cannot be a name has no image, as Docker says it
        raise ImageNotFound(e.message, hint=e.hint) from e
    await call.engine.images.tag(call.path["name"], repo, call.query.get("tag", ""))
    return call.empty(201)


async def remove(call: Call) -> web.StreamResponse:
    """Untag an image, and delete it with its last name (NotFound: it is for other platforms than those named)."""
    if chosen := platforms.to_remove(call.query):
        call.engine.images.get(call.path["name"], chosen)
    rows = await call.engine.images.remove(
        call.path["name"], force=query.flag(call.query, "force"), prune=not query.flag(call.query, "noprune")
    )
    return call.json(rows)


async def load(call: Call) -> web.StreamResponse:
    """Read an archive from the request's body.

    As dockerd's the answer begins with the first line: clients that want no progress may go when it does.
    """
    body = call.request.content.iter_chunked(_CHUNK)
    items = call.engine.images.load(body, query.flag(call.query, "quiet", default=True), platforms.several(call.query))
    return await progress(call, items, only_lines=True)


async def create(call: Call) -> web.StreamResponse:
    """Pull an image (``fromImage``), or import a root filesystem (``fromSrc``: ``-``, or the address of a file)."""
    source, image = call.query.get("fromSrc", ""), call.query.get("fromImage")
    if image:
        credentials = from_header(call.request.headers.get("X-Registry-Auth"))
        chosen = platforms.plain(call.query)
        pulling = call.engine.pulls.pull(image, call.query.get("tag", ""), chosen, credentials)
        with from_registry():
            async with while_connected(call.request):
                return await progress(call, pulling)
    options = ImportOptions(
        repo=call.query.get("repo", ""),
        tag=call.query.get("tag", ""),
        changes=[value for key, value in call.query.items() if key == "changes"],
        message=call.query.get("message", ""),
        platform=call.query.get("platform", ""),
    )
    if source == "-":
        content = call.request.content.iter_chunked(_CHUNK)
        return await progress(call, call.engine.images.import_(content, options))
    with from_registry():
        async with while_connected(call.request):
            return await progress(call, call.engine.images.import_url(source, options))


async def push(call: Call) -> web.StreamResponse:
    """Send a tag, or all of a repository's, to its registry."""
    credentials = from_header(call.request.headers.get("X-Registry-Auth"))
    chosen = platforms.one(call.query)
    work = call.engine.pushes.push(call.path["name"], call.query.get("tag", ""), chosen, credentials)
    with from_registry():
        async with while_connected(call.request):
            return await progress(call, work)


async def bootstrap(call: Call) -> web.StreamResponse:
    """Make a base image from the distribution's packages."""
    ref = call.query.get("ref", "")
    if not ref:
        raise InvalidArgument("bootstrap: which image?", hint="give ref=debian:bookworm or ref=busybox")
    return await progress(call, call.engine.images.bootstrap(ref))


async def progress(
    call: Call, items: AsyncGenerator[ProgressItem, None], *, only_lines: bool = False
) -> web.StreamResponse:
    """Send progress as JSON lines; an error before the first line is a status, a later one a line.

    With ``only_lines`` each is a line.
    """
    response: web.StreamResponse | None = None
    try:
        async with aclosing(items):
            async for item in items:
                if response is None:
                    response = await call.stream()
                await response.write(jsontext.encode(item) + b"\r\n")
    except Exception as e:
        if isinstance(e, ConnectionError) or (response is None and not only_lines):
            raise
        if isinstance(e, OSError) and os_errors.is_known(e):  # a full disk, a quota
            e = os_errors.explained(e, f"{call.request.method} {call.request.path}")
            log.warning("%s", e.message)
        if not isinstance(e, KetchError):
            log.exception("%s %s", call.request.method, call.request.path)
        message = message_of(e) if isinstance(e, KetchError) else f"internal error in ketchd: {type(e).__name__}: {e}"
        kind = e.kind if isinstance(e, KetchError) else INTERNAL
        line = {"errorDetail": body_of(message, kind), "error": message}
        response = response or await call.stream()
        await response.write(jsontext.encode(line) + b"\r\n")
    return response or await call.stream()


async def save(call: Call) -> web.StreamResponse:
    """An archive of one image or several."""
    names = [call.path["name"]] if "name" in call.path else call.query.getall("names", [])
    if not names:
        raise InvalidArgument("save: no image named", hint="give names=IMAGE")
    chosen = platforms.several(call.query)
    with prefixed("", unclassified=True):
        for name in names:
            _check_saved(call, name, chosen)
    async with aclosing(call.engine.images.save(names, chosen)) as chunks:
        first = await anext(chunks)  # what is missing is told before the stream begins, with a status of its own
        response = await call.stream("application/x-tar")
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    return response


def _check_saved(call: Call, name: str, chosen: list[str]) -> None:
    """Check that an image is here, for all of these platforms (ImageNotFound, FailedPrecondition)."""
    try:
        call.engine.images.named(name)
        for platform in chosen:
            call.engine.images.get(name, platform)
    except PlatformMismatch as e:
        raise FailedPrecondition(f"no suitable export target found for platform {platform}", hint=e.message) from e
    except ImageNotFound as e:
        if ("@" in name or ":" in name.rpartition("/")[2]) and not name.startswith("sha256:"):
            raise ImageNotFound("reference does not exist", hint=e.message) from e
        raise


async def prune(call: Call) -> web.StreamResponse:
    """Delete images without a name (``dangling=false``: without a container) that no container uses."""
    chosen = query.filters(call.query)
    filters.until_moments(chosen)
    if len(chosen.get("until", ())) > 1:
        raise UnclassifiedArgument("more than one until filter specified")
    matches = filters.prune_predicate(chosen)
    dangling = bool(filters.booleans_of(chosen, "dangling", True))
    only_shown, without = await dry_run.wanted(call)
    done = await call.engine.prunes.images(matches, dangling=dangling, dry_run=only_shown, without=without)
    return call.json(prunes.images(done, dry_run=only_shown))


ROUTES = (
    ("GET", "/images/json", list_),
    ("POST", "/images/create", create),
    ("POST", "/images/load", load),
    ("POST", "/images/prune", prune),
    ("GET", "/images/get", save),
    ("GET", "/images/{name:path}/get", save),
    ("GET", "/images/{name:path}/json", inspect),
    ("GET", "/images/{name:path}/history", history),
    ("GET", "/images/{name:path}/attestations", attestations),
    ("POST", "/images/{name:path}/tag", tag),
    ("POST", "/images/{name:path}/push", push),
    ("DELETE", "/images/{name:path}", remove),
    ("POST", "/ketch/images/bootstrap", bootstrap),
)
