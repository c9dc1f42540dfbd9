"""Contexts of a build on this machine: what came as a tar, or from the web, in directories of the build's own.

They are removed at the build's end, or at the next start.  The Dockerfile in them, and what they leave out.
"""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV
from typing import TYPE_CHECKING

from ketch import dockerignore
from ketch.engine.aio.transfer import BodyReader
from ketch.engine.build import dockerfiles
from ketch.engine.build.dockerfiles import FoundDockerfile
from ketch.engine.model.building.builds import ARCHIVE
from ketch.errors import InvalidArgument, NotFound, UnclassifiedArgument
from ketch.remote import download
from ketch.runtime.rootfs import paths
from ketch.storage.archive import compression
from ketch.storage.contexts.receive import PrivateDirectory, receive
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AsyncExitStack

    from ketch.engine.build.run.session import RequestSession
    from ketch.engine.model.building.builds import GivenDockerfile, ImageBuild

MAIN = "context"
_LARGEST_FILE = 16 << 20  # of a Dockerfile, or of the rules beside it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TAR_MAGIC, _TAR_MAGIC_AT, _BLOCK = b"ustar", 257, 512
_BUFFER = 1 << 20


async def bring(
    request: ImageBuild, session: RequestSession, body: AsyncIterator[bytes], root: str, stack: AsyncExitStack
) -> None:
    """Bring the directories here that the request has in its body or that it names in the web; ``stack`` ends them.

    InvalidArgument, ResourceExhausted; what the web's server says.
    """
    if request.uploads:
        if ARCHIVE in request.uploads.values() and len(request.uploads) > 1:
            raise InvalidArgument("build: a tar that is a directory itself can have no others in it")
        found = await _received(body, root, stack)
        for name, place in request.uploads.items():
            session.add(name, found.fd if place == ARCHIVE else _part(found, name, place, stack))
    elif request.remote and not dockerfiles.is_git(request.remote):
        session.add(MAIN, (await _downloaded(request, root, stack)).fd)
    elif MAIN not in request.directories and not request.remote:
        session.add(MAIN, (await empty(root, stack)).fd)


def _kept(found: PrivateDirectory, stack: AsyncExitStack) -> PrivateDirectory:
    """A directory that goes with the stack."""
    stack.push_async_callback(in_own_thread, found.close)
    return found


async def empty(root: str, stack: AsyncExitStack) -> PrivateDirectory:
    """A directory in which nothing is."""
    return _kept(await in_own_thread(lambda: PrivateDirectory(root)), stack)


def _part(found: PrivateDirectory, name: str, place: str, stack: AsyncExitStack) -> int:
    try:
        fd = os.open(place, _DIRECTORY | os.O_NOFOLLOW, dir_fd=found.fd)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise InvalidArgument(f"build: the request's tar has no directory `{place}` for `{name}`") from e
    stack.callback(os.close, fd)
    return fd


async def _received(body: AsyncIterator[bytes], root: str, stack: AsyncExitStack) -> PrivateDirectory:
    """The tar of a body, unpacked; a caller that is cancelled ends that."""
    reader = BodyReader(body, asyncio.get_running_loop())
    work = asyncio.ensure_future(in_own_thread(lambda: receive(io.BufferedReader(reader, _BUFFER), root)))
    try:
        return _kept(await asyncio.shield(work), stack)
    except InvalidArgument as e:
        raise UnclassifiedArgument(e.message, hint=e.hint) from e  # as dockerd has it
    except asyncio.CancelledError:
        reader.cancel()
        await asyncio.wait([work])
        if not work.cancelled() and work.exception() is None:
            _kept(work.result(), stack)
        raise
    finally:
        await reader.abandon()


async def _downloaded(request: ImageBuild, root: str, stack: AsyncExitStack) -> PrivateDirectory:
    """The file of an address: a tar unpacked, anything else as the Dockerfile of an empty context."""
    url = download.address(request.remote)
    async with download.opened(url) as (_, pieces):
        first = b""
        async for piece in pieces:
            first += piece
            if len(first) >= _BLOCK:
                break

        async def rest() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        if compression.kind(first) != "none" or first[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
            return await _received(rest(), root, stack)
        async for piece in pieces:
            first += piece
            if len(first) > _LARGEST_FILE:
                raise InvalidArgument(f"build: the Dockerfile at {url} is larger than {_LARGEST_FILE >> 20} MiB")
    found = await empty(root, stack)
    request.dockerfile_path = "Dockerfile"
    fd = os.open("Dockerfile", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=found.fd)
    try:
        os.write(fd, first)
    finally:
        os.close(fd)
    return found


def find(fd: int, request: ImageBuild) -> FoundDockerfile:
    """The Dockerfile in an open directory, with its rules (InvalidArgument).  Blocking."""
    name = request.dockerfile_path
    if posixpath.normpath(name).startswith("../"):
        raise UnclassifiedArgument(f"forbidden path outside the build context: {name} ()")
    data = read_file(fd, name)
    if data is None and name == "Dockerfile":  # as Docker: also in small letters
        data = read_file(fd, name.lower())
    if data is None:
        raise UnclassifiedArgument(f"Cannot locate specified Dockerfile: {name}")
    return FoundDockerfile(name, dockerfiles.text_of(data, name), rules(fd, name))


def own_files(found: FoundDockerfile) -> Sequence[str]:
    """The patterns of a context that came through Docker's API: of the build's own files, as far as they are left out.

    All others its client has left out already; dockerd does not look for them either.
    """
    rules = dockerignore.IgnoreRules(found.ignore)
    return [name for name in (found.name, dockerignore.DEFAULT) if rules.ignored(name)]


def given(file: GivenDockerfile) -> FoundDockerfile:
    """A Dockerfile that came with the request, whose client knows what is left out (InvalidArgument)."""
    patterns = () if file.ignore is None else dockerfiles.ignore_patterns(file.ignore, ".dockerignore")
    return FoundDockerfile(file.name, dockerfiles.text_of(file.data, file.name), patterns)


def rules(fd: int, dockerfile: str) -> Sequence[str]:
    """The patterns of what is left out of an open directory (InvalidArgument)."""
    for name in dockerignore.file_names(dockerfile):
        if (data := read_file(fd, name)) is not None:
            return dockerfiles.ignore_patterns(data, name)
    return ()


def read_file(root_fd: int, name: str) -> bytes | None:
    """A file's bytes; links stay in the directory; None: there is no such file (InvalidArgument: it is none)."""
    try:
        fd = paths.open_in(root_fd, name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR):
            return None
        if e.errno in (ELOOP, EXDEV):
            raise InvalidArgument(f"build: `{name}` leads out of the context, or nowhere") from e
        raise
    with open(fd, "rb") as file:
        try:
            data = file.read(_LARGEST_FILE + 1)
        except IsADirectoryError as e:
            raise InvalidArgument(f"build: `{name}` is a directory, and no file") from e
    if len(data) > _LARGEST_FILE:
        raise InvalidArgument(f"build: `{name}` is larger than {_LARGEST_FILE >> 20} MiB")
    return data


async def directory(session: RequestSession, name: str = MAIN) -> int:
    """The descriptor of a directory of the session (NotFound)."""
    try:
        return (await session.directory(name)).fd
    except NotFound as e:
        raise InvalidArgument(f"build: there is no context: {e.message}") from e
