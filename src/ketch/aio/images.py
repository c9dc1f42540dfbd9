"""Images of an engine: pulled, loaded, built, made of directories."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING

from ketch.aio.results import Image
from ketch.client.errors import error_of
from ketch.errors import ImageNotFound, InvalidArgument, KetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from typing import IO, Any

    from ketch.aio.access import Access
    from ketch.client.http import Query

_CHUNK = 1 << 20


class Images:
    """The images of one engine."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def pull(self, name: str, *, auth: tuple[str, str] | None = None) -> Image:
        """Fetch an image from its registry; ``auth`` is a user's name and password there."""
        query = {"fromImage": name, "tag": None if _has_version(name) else "latest"}
        headers = {}
        if auth is not None:
            given = json.dumps({"username": auth[0], "password": auth[1]}).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(given).decode("ascii")
        async for _row in self._rows("/images/create", query, headers=headers):
            pass
        return await self.get(name)

    async def bootstrap(self, name: str) -> Image:
        """Make a base image of this machine's packages, without a registry: ``debian:trixie``, ``busybox``."""
        async for _row in self._rows("/ketch/images/bootstrap", {"ref": name}):
            pass
        return await self.get(name)

    async def get(self, name: str) -> Image:
        """The image of a name or an id (ImageNotFound)."""
        http = await self._access.http()
        found = await http.json("GET", f"/images/{name}/json")
        return Image(found["Id"], tuple(found.get("RepoTags") or ()), found.get("Size", 0))

    async def exists(self, name: str) -> bool:
        """Whether the engine has an image of that name."""
        try:
            await self.get(name)
        except ImageNotFound:
            return False
        return True

    async def all(self) -> list[Image]:
        """All of them."""
        http = await self._access.http()
        found = await http.json("GET", "/images/json")
        return [Image(one["Id"], tuple(one.get("RepoTags") or ()), one.get("Size", 0)) for one in found]

    async def load(self, archive: str | os.PathLike[str] | bytes) -> list[Image]:
        """Read images from an archive as ``save`` writes it: a file, or its content."""
        names = []
        async for row in self._rows("/images/load", {"quiet": True}, _content(archive)):
            _, found, name = row.get("stream", "").strip().partition("Loaded image")
            if found:
                names.append(name.removeprefix(" ID").removeprefix(":").strip())
        return [await self.get(name) for name in names]

    async def save(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write an image into an archive, which has its name once it is whole (OSError)."""
        http = await self._access.http()
        answer = await http.open("GET", f"/images/{name}/get")
        try:
            with _new_file(os.fspath(path)) as f:  # a disk is not waited for
                while piece := await answer.next():
                    f.write(piece)
        finally:
            answer.stream.close()

    async def build(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        tag: str = "",
        dockerfile: str = "",
        args: Mapping[str, str] | None = None,
        target: str = "",
    ) -> Image:
        """Build an image of a directory with a Dockerfile.

        ``dockerfile``: its name in the directory; without a directory, its text.
        """
        query: Query = {
            "t": tag or None,
            "networkmode": await self._access.default_network(),
            "dockerfile": (dockerfile or None) if directory is not None else None,
            "buildargs": json.dumps(dict(args or {})),
            "target": target or None,
            "rm": True,
        }
        context = _context(directory, dockerfile)
        image, said = "", ""
        try:
            async for row in self._rows("/build", query, context):
                image = (row.get("aux") or {}).get("ID") or image
                said += row.get("stream", "")
        except KetchError as e:
            e.add_note(said[-4000:])
            raise
        return await self.get(image)

    async def from_directory(
        self, directory: str | os.PathLike[str], tag: str, *, changes: Iterable[str] = ()
    ) -> Image:
        """Make an image whose files are those of a directory; ``changes``: instructions such as ``CMD ["sh"]``."""
        from ketch.client import tar

        archive = tar.pack(os.path.realpath(directory), ".", str, owner=(0, 0))
        repo, _, version = tag.rpartition(":") if _has_version(tag) else (tag, "", "")
        query: Query = {"fromSrc": "-", "repo": repo, "tag": version or "latest", "changes": list(changes)}
        async for _row in self._rows("/images/create", query, archive):
            pass
        return await self.get(tag)

    async def tag(self, image: str | Image, tag: str) -> None:
        """Give an image another name."""
        repo, _, version = tag.rpartition(":") if _has_version(tag) else (tag, "", "")
        http = await self._access.http()
        await http.request("POST", f"/images/{image}/tag", {"repo": repo, "tag": version or "latest"})

    async def remove(self, image: str | Image, *, force: bool = False) -> None:
        """Remove a name, and with its last name the image."""
        http = await self._access.http()
        await http.request("DELETE", f"/images/{image}", {"force": force})

    async def _rows(
        self, path: str, query: Query, body: Any = b"", *, headers: dict[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The lines of an answer that tells of progress; its error is raised."""
        http = await self._access.http()
        answer = await http.open("POST", path, query, body, headers=headers)
        rest = b""
        try:
            while True:
                piece = await answer.next()
                *lines, rest = (rest + piece).split(b"\n") if piece else (rest, b"")
                for line in filter(bytes.strip, lines):
                    row = json.loads(line)
                    if "error" in row:
                        kind = str((row.get("errorDetail") or {}).get("kind") or "")
                        raise error_of(str(row["error"]), kind)
                    yield row
                if not piece:
                    return
        finally:
            answer.stream.close()


def _has_version(name: str) -> bool:
    return "@" in name or ":" in name.rpartition("/")[2]


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """A file that takes its name, and the place of another one, when it is whole; pipes and devices are written to."""
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as f:
            yield f
        return
    draft = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}")
    try:
        with open(draft, "xb") as f:
            yield f
        os.replace(draft, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _content(archive: str | os.PathLike[str] | bytes) -> Iterator[bytes]:
    if isinstance(archive, bytes):
        yield archive
        return
    with open(archive, "rb") as f:
        while piece := f.read(_CHUNK):
            yield piece


def _context(directory: str | os.PathLike[str] | None, dockerfile: str) -> Iterator[bytes]:
    """The files of a build, without those that ``.dockerignore`` names."""
    from ketch import dockerignore
    from ketch.client import context_tar

    if directory is None:
        if not dockerfile:
            raise InvalidArgument("build an image: of neither a directory nor the text of a Dockerfile")
        yield context_tar.member("Dockerfile", dockerfile.encode())
    else:
        name = dockerfile or "Dockerfile"
        text = ""
        for rules in dockerignore.file_names(name):
            try:
                with open(os.path.join(directory, rules), encoding="utf-8", errors="replace") as f:
                    text = f.read()
                break
            except FileNotFoundError:
                continue
        yield from context_tar.pack(os.fspath(directory), dockerignore.read(text), always=(name,))
    yield context_tar.END
