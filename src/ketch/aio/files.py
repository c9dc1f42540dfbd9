"""Files on their way into containers and out of them, as archives."""

from __future__ import annotations

import os
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, NotFound, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.aio.http import Answer

Content = bytes | str | os.PathLike[str] | Mapping[str, bytes | str]

LIMIT = 256 << 20  # of what is read into memory unless more is asked for: a container may make a file of any size
_IN_MEMORY = 8 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)


def packed(path: str, content: Content, mode: int, owner: tuple[int, int]) -> Iterator[bytes]:
    """The archive that brings ``content`` to an absolute path: a file, a tree of this machine, or files by their names.

    Files and trees of this machine keep their modes; all get ``owner``.
    """
    target = _inner(path)
    if isinstance(content, Mapping):
        for name, data in content.items():
            yield from _member(posixpath.join(target, _inner(name)), data, mode, owner)
    elif isinstance(content, bytes | str):
        if not target:
            raise InvalidArgument(f"put a file at `{path}`: that is a directory")
        yield from _member(target, content, mode, owner)
    else:
        yield from _tree(os.fspath(content), target, owner)
        return
    yield _END


def _member(name: str, data: bytes | str, mode: int, owner: tuple[int, int]) -> Iterator[bytes]:
    from ketch.client.tar import header

    content = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    info.uid, info.gid = owner
    info.mtime = int(time.time())
    yield header(info) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _tree(local: str, target: str, owner: tuple[int, int]) -> Iterator[bytes]:
    from ketch.client import tar

    if not os.path.exists(local):
        raise NotFound(f"put `{local}`: there is no such file on this machine")
    name = target or "."
    yield from tar.pack(os.path.realpath(local), name, lambda inner: inner, owner=owner)


def _inner(path: str) -> str:
    """A path below the root, or below a directory, that leads nowhere else (InvalidArgument)."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"path `{path}`: it leads upwards", hint="write it without `..`")
    return "/".join(parts)


def _within(name: str) -> str:
    """The path in its directory of an entry, which begins with that one's name; those of the root begin with ``/``."""
    return name.strip("/") if name.startswith("/") else name.rstrip("/").partition("/")[2]


class Received:
    """An archive that has come whole: in memory, or in a file without a name when it is large."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `close` is ours

    async def fill(self, answer: Answer, what: str, limit: int | None) -> None:
        """Read an answer's body (ResourceExhausted: more than ``limit`` bytes)."""
        size = 0
        while piece := await answer.next():
            size += len(piece)
            if limit is not None and size > limit:
                raise ResourceExhausted(f"get `{what}`: it is larger than {limit} bytes", hint="ask with limit=")
            self._file.write(piece)
        self._file.seek(0)

    def content(self, path: str) -> bytes:
        """The one file in it (InvalidArgument: it is something else)."""
        with tarfile.open(fileobj=self._file) as archive:
            member = archive.next()
            found = archive.extractfile(member) if member is not None and member.isfile() else None
            if found is None:
                raise InvalidArgument(f"get `{path}`: that is no file", hint="get_tree() reads directories")
            return found.read()

    def tree(self) -> dict[str, bytes]:
        """The files of a directory, by their paths in it."""
        found = {}
        with tarfile.open(fileobj=self._file) as archive:
            for member in archive:
                if member.isfile():
                    content = archive.extractfile(member)
                    found[_within(member.name) or posixpath.basename(member.name)] = (
                        content.read() if content is not None else b""
                    )
        return found

    def unpack(self, directory: str) -> None:
        """Unpack what is in the directory that it holds into one of this machine; nothing leaves that."""
        from ketch.client import tar

        def pieces() -> Iterator[bytes]:
            while piece := self._file.read(1 << 18):
                yield piece

        os.makedirs(directory, exist_ok=True)
        tar.unpack(tar.Incoming(pieces(), lambda _count: None), directory, _within, owners=False, plain=True)

    def close(self) -> None:
        """Drop it."""
        self._file.close()
