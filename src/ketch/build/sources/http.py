"""Files of the web (``http://…``, ``https://…``), as the one file of a layer.

A file counts by its content.  What a server said of it last time (its ETag) is kept, so that one that has not changed
is not downloaded again as long as its result is in the cache.  What is at the host ``buildkit-session`` a client of the
build has: an archive that it was given on its standard input, for instance.
"""

from __future__ import annotations

import asyncio
import email.message
import email.utils
import hashlib
import os
import posixpath
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import aiohttp
from yarl import URL

from ketch import threads
from ketch.build.cache.maps import Download, http_map
from ketch.build.sources.attributes import number
from ketch.build.sources.kept.versions import Version
from ketch.build.sources.threads import drafted
from ketch.build.tree import Tree
from ketch.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from ketch.oci import digest as digests
from ketch.remote.errors import BREAKS, shown, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots, LayerDraft
    from ketch.build.sources.kept.versions import Versions

UPLOADS = "buildkit-session"  # the host of what a client keeps for its builds
_BUFFER = 1 << 20
_PERM = 0o600
_CONNECT_S, _STALL_S = 30, 120
_UPLOADS = 64  # of which the daemon knows what they were
_HEADERS = ("Accept", "User-Agent")  # that a source may set


class _Saved(NamedTuple):
    """A file that was downloaded: its layer, and what it is."""

    layer: str
    file: Download


class Uploads:
    """The files that clients have kept and given, which they do once: a build may ask for one again."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, ...], _Saved] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> _Saved | None:
        """A file that was given before, whose layer may be gone."""
        return self._known.get(key)

    def keep(self, key: tuple[str, ...], saved: _Saved) -> None:
        """Note what was given."""
        self._known[key] = saved
        while len(self._known) > _UPLOADS:
            self._known.popitem(last=False)


class HttpSource:
    """The operation of a file of the web."""

    def __init__(
        self,
        identifier: str,
        attrs: Mapping[str, str],
        snapshots: BuildSnapshots,
        versions: Versions,
        uploads: Uploads,
    ) -> None:
        """InvalidArgument: the attributes are wrong."""
        self._url = identifier
        self._checksum = attrs.get("http.checksum", "")
        if self._checksum and not digests.valid(self._checksum):
            raise InvalidArgument(f"invalid checksum {self._checksum[:100]!r}: write sha256:… in full")
        self._asked_name = attrs.get("http.filename", "")
        self._mode = number(attrs, "http.perm") or _PERM
        self._owner = number(attrs, "http.uid"), number(attrs, "http.gid")
        self._given = number(attrs, "http.perm"), *self._owner
        self._secret = attrs.get("http.authheadersecret", "")
        self._header = {
            name: attrs[f"http.header.{name.lower()}"] for name in _HEADERS if f"http.header.{name.lower()}" in attrs
        }
        self._snapshots, self._versions, self._uploads = snapshots, versions, uploads
        self._uploaded = identifier.partition("://")[2].partition("/")[0] == UPLOADS
        self._saved: _Saved | None = None
        self._promised = ""

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The map, by the file's content: as the source promises it, or the server."""
        if self._checksum:
            work.pin(self._checksum)
            return [http_map(self._file(_name(self._url, self._asked_name, ""), self._checksum, ""))]
        if self._uploaded:
            self._saved = await self._receive(work)
            return [http_map(self._saved.file)]
        known = await asyncio.to_thread(self._versions.known, self._key())
        async with self._answer(work, known) as response:
            version = _same(response, known)
            if version is None:
                self._saved = await self._save(work, response)
                file = self._saved.file
            else:
                name = _name(self._url, self._asked_name, response.headers.get("Content-Disposition", ""))
                file = self._file(name, version.checksum, version.modified)
        self._promised = file.checksum
        work.pin(file.checksum)
        return [http_map(file)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Download the file, if that is not done yet (InvalidArgument: it is not what the source promises)."""
        del inputs
        if self._saved is None:
            if self._uploaded:
                self._saved = await self._receive(work)
            else:
                async with self._answer(work, ()) as response:
                    self._saved = await self._save(work, response)
        found = self._saved.file.checksum
        if self._checksum and found != self._checksum:
            raise InvalidArgument(f"digest mismatch {found}: {self._checksum}", hint=f"it is of {self._shown()}")
        if self._promised and found != self._promised:
            raise Conflict(f"{self._shown()} changed while it was downloaded", hint="build again")
        return [Tree((self._saved.layer,))]

    def _file(self, name: str, checksum: str, modified: str) -> Download:
        perm, uid, gid = self._given
        return Download(name, checksum, perm, uid, gid, modified, self._secret)

    def _key(self) -> str:
        """A name of all that the request depends on."""
        parts = (self._url, self._asked_name, *map(str, self._given), self._secret, *self._header.values())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _shown(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @asynccontextmanager
    async def _answer(self, work: Work, known: Sequence[Version]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of the server, which is told the versions that are known."""
        header = {"Accept-Encoding": "gzip", **self._header}
        if known:
            header["If-None-Match"] = ", ".join(one.etag for one in known)
        if self._secret:
            header["Authorization"] = await self._authorization(work)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_STALL_S)
        async with aiohttp.ClientSession(
            timeout=limits, trust_env=True, cookie_jar=aiohttp.DummyCookieJar(), headers=header
        ) as client:
            try:
                response = await client.get(self._url)
            except (aiohttp.InvalidURL, ValueError) as e:
                raise InvalidArgument(f"get {self._shown()}: it is no address") from e
            except aiohttp.TooManyRedirects as e:
                raise Unavailable(f'Get "{self._shown()}": stopped after 10 redirects') from e
            except BREAKS as e:
                raise unreachable("GET", URL(self._url), e) from e
            async with response:
                if response.status >= 400 or response.status < 200:
                    kind = NotFound if response.status == 404 else Unavailable
                    raise kind(f"invalid response status {response.status}", hint=f"it is of {self._shown()}")
                yield response

    async def _authorization(self, work: Work) -> str:
        """The header with which the client of the build is known to the server."""
        for session in work.sessions:
            found = await session.secret(self._secret)
            if found is not None:
                text = found.decode("latin-1").strip()
                if text.isprintable():
                    return text
                raise InvalidArgument(f"the secret {self._secret} cannot be a header: it has control characters")
        raise NotFound(f"secret {self._secret}: not found", hint=f"it is to go to {self._shown()}")

    async def _save(self, work: Work, response: aiohttp.ClientResponse) -> _Saved:
        """Write the body to a new layer, and keep what the server says of it."""
        header = response.headers
        saved = await self._written(work, _pieces(response), header)
        etag = header.get("ETag", "").removeprefix("W/")
        if etag:
            version = Version(etag=etag, checksum=saved.file.checksum, modified=saved.file.modified)
            await asyncio.to_thread(self._versions.keep, self._key(), version)
        return saved

    async def _receive(self, work: Work) -> _Saved:
        """Write what a client keeps for the build to a new layer (NotFound: no client has it)."""
        url = urlsplit(self._url)
        missing: NotFound | None = None
        for session in work.sessions:
            key = session.id, self._key()
            if (saved := self._uploads.get(key)) is not None:
                work.lease.hold(saved.layer)
                if self._snapshots.exists(saved.layer):
                    return saved
            try:
                saved = await self._written(work, session.uploaded(url.netloc, url.path), {})
            except NotFound as e:
                missing = missing or e
                continue
            self._uploads.keep(key, saved)
            return saved
        raise missing or NotFound(f"no client keeps {self._url}")

    async def _written(self, work: Work, pieces: AsyncIterator[bytes], header: Mapping[str, str]) -> _Saved:
        """Write pieces to the file of a new layer, which is called and dated as the header says."""
        name = _name(self._url, self._asked_name, header.get("Content-Disposition", ""))
        modified, seconds = _modified(header.get("Last-Modified", ""))
        async with drafted(self._snapshots, work.lease) as draft:
            path = os.path.join(draft.directory, name)
            checksum = await self._write(work, pieces, int(header.get("Content-Length") or 0), path)
            layer = await threads.run_to_end(self._finish, draft, path, seconds)
        return _Saved(layer, self._file(name, checksum, modified))

    async def _write(self, work: Work, pieces: AsyncIterator[bytes], total: int, path: str) -> str:
        """Write pieces to a file; returns its digest."""
        digest, done, next_s = hashlib.sha256(), 0, time.monotonic()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PERM)
        try:
            async for piece in pieces:
                await threads.run_to_end(_write, fd, piece)
                digest.update(piece)
                done += len(piece)
                if time.monotonic() >= next_s:
                    next_s = time.monotonic() + 0.1
                    work.log.status("downloading", done, total)
        finally:
            os.close(fd)
        work.log.status("downloading", done, total, done=True)
        return f"sha256:{digest.hexdigest()}"

    def _finish(self, draft: LayerDraft, path: str, seconds: int) -> str:
        os.chown(path, *self._owner)
        os.chmod(path, self._mode & 0o7777)
        os.utime(path, (seconds, seconds))
        return draft.commit()


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The pieces of a body (Unavailable: it breaks off)."""
    try:
        async for piece in response.content.iter_chunked(_BUFFER):
            yield piece
    except BREAKS as e:
        raise unreachable("GET", response.url, e) from e


def _write(fd: int, piece: bytes) -> None:
    """Write a piece whole (ResourceExhausted: the disk is full)."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as e:
        if e.errno in (ENOSPC, EDQUOT):
            raise ResourceExhausted("download a file of the web: no space left on device") from e
        raise


def _same(response: aiohttp.ClientResponse, known: Sequence[Version]) -> Version | None:
    """The known version that an answer is of; None for a new one (KetchError)."""
    etag = response.headers.get("ETag", "").removeprefix("W/")
    if not etag and response.status == 304 and len(known) == 1:
        return known[0]
    found = next((one for one in known if one.etag == etag), None)
    if found is None and response.status == 304:
        raise Unavailable(f"invalid not-modified ETag: {etag}", hint=f"it is of {shown(response.url)}")
    return found


def _name(url: str, asked: str, disposition: str) -> str:
    """The file's name: as asked for, as the server calls it, or the last part of its path."""
    name = asked or _disposed(disposition) or posixpath.basename(posixpath.normpath(unquote(urlsplit(url).path)))
    if name in ("", ".", ".."):
        name = "download"
    if "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise InvalidArgument(f"invalid file name {name[:100]!r} for a file of the web")
    return name


def _disposed(disposition: str) -> str:
    """The last part of the name in a header ``Content-Disposition``."""
    if not disposition:
        return ""
    message = email.message.Message()
    message["Content-Disposition"] = disposition
    name = message.get_filename("")
    return "" if name.endswith("/") else posixpath.basename(name)


def _modified(header: str) -> tuple[str, int]:
    """A time as HTTP writes it, in its one form and in seconds; empty and 0 for what is none."""
    try:
        moment = email.utils.parsedate_to_datetime(header)
        return email.utils.format_datetime(moment, usegmt=True), int(moment.timestamp())
    except (TypeError, ValueError, OverflowError):
        return "", 0
