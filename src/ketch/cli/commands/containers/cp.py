"""``cp``: copies files between a container and this machine, by the rules of ``docker cp``."""

from __future__ import annotations

import base64
import os
import posixpath
import sys

from ketch.cli.copying import paths
from ketch.cli.copying.paths import MODE_DIR, MODE_LINK, CopyPath
from ketch.cli.options.flags import FlagSet
from ketch.client import tar
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.notation import documents
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ketch.cli.context import Context
    from ketch.client.http import Response
    from ketch.notation.api_objects import ApiObject

_STAT = "x-docker-container-path-stat"


def cmd_cp(args: list[str], ctx: Context) -> int:
    """Copy between a container and this machine."""
    spec = FlagSet(
        "cp",
        "ketch cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        ketch cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files/folders between a container and the local filesystem",
    )
    spec.bool("archive", "a", "copy owners, too").bool("follow-link", "L", "follow a link as SRC_PATH")
    spec.bool("quiet", "q", "no progress and no last line")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    if not rest[0]:
        raise InvalidArgument("source can not be empty")
    if not rest[1]:
        raise InvalidArgument("destination can not be empty")
    (source, source_path), (target, target_path) = map(paths.split_argument, rest)
    if source and target:
        raise InvalidArgument("copying between containers is not supported", hint="copy to this machine in between")
    if not source and not target:
        raise InvalidArgument("must specify at least one container source", hint="write CONTAINER:PATH")
    copy = _Copy(ctx, source or target, opts)
    return copy.fetch(source_path, target_path) if source else copy.send(source_path, target_path)


class _Copy:
    def __init__(self, ctx: Context, container: str, opts: Any) -> None:
        self._ctx = ctx
        self._container = container
        self._follow, self._owners, self._quiet = opts["follow-link"], opts["archive"], opts["quiet"]
        self._url = f"/containers/{container}/archive"
        self._drawn = not self._quiet and sys.stderr.isatty()
        self._shown = ""

    # -- from the container ----------------------------------------------------------------------

    def fetch(self, path: str, destination: str) -> int:
        """Copy ``path`` of the container to this machine."""
        local = None if destination == "-" else paths.local_destination(destination)
        path, rebase = self._followed(path) if self._follow else (path, "")
        response = self._ctx.client().request("GET", self._url, {"path": path}, stream=True)
        if local is None:
            for chunk in response.iter_chunks():
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return 0
        facts = _facts(response)
        source = CopyPath(path, exists=True, directory=bool(facts["mode"] & MODE_DIR), rebase=rebase)
        directory, change = paths.plan(source, local)
        first = (paths.split_entry(path)[1], rebase) if rebase else None
        incoming = tar.Incoming(
            response.iter_chunks(), lambda n: self._show(f"Copying from container - {human_size(n)}")
        )
        try:
            tar.unpack(
                incoming,
                directory,
                lambda name: paths.renamed(paths.renamed(name, first), change),
                owners=self._owners and os.geteuid() == 0,
            )
        finally:
            response.close()
            self._show("")
        self._done(incoming.count, local.path)
        return 0

    def _followed(self, path: str) -> tuple[str, str]:
        try:
            facts = self._stat(path)
        except NotFound:
            return path, ""  # the answer to a HEAD has no message: the GET tells what is wrong
        if not facts["mode"] & MODE_LINK:
            return path, ""
        return paths.rebased(path, _absolute_target(facts["linkTarget"], path))

    # -- to the container ------------------------------------------------------------------------

    def send(self, source: str, path: str) -> int:
        """Copy a local path, or a tar stream from standard input, to ``path`` of the container."""
        destination = self._destination(path)
        if source == "-":
            if not destination.directory:
                raise InvalidArgument(f'destination "{self._container}:{path}" must be a directory')
            from ketch.cli.files import chunks

            self._put(destination.path, chunks("-"))
            return 0
        local = paths.local_source(source, self._follow)
        directory, change = paths.plan(local, destination)
        name = local.rebase or paths.split_entry(local.path)[1]
        stream = tar.pack(local.path, name, lambda entry: paths.renamed(entry, change))
        count = self._put(directory, stream)
        self._done(count, f"{self._container}:{destination.path}")
        return 0

    def _destination(self, path: str) -> CopyPath:
        try:
            facts = self._stat(path)
            if facts["mode"] & MODE_LINK:
                path = _absolute_target(facts["linkTarget"], path)
                facts = self._stat(path)
        except NotFound:
            return CopyPath(path)  # its parent may exist: the PUT will tell
        paths.check_remote(f"{self._container}:{path}", facts["mode"])
        return CopyPath(path, exists=True, directory=bool(facts["mode"] & MODE_DIR))

    def _put(self, directory: str, stream: Iterable[bytes]) -> int:
        count = 0

        def counted() -> Iterator[bytes]:
            nonlocal count
            for chunk in stream:
                count += len(chunk)
                self._show(f"Copying to container - {human_size(count)}")
                yield chunk

        query = {"path": directory, "noOverwriteDirNonDir": "true", "copyUIDGID": "true" if self._owners else None}
        try:
            self._ctx.client().request("PUT", self._url, query, counted())
        finally:
            self._show("")
        return count

    # -- both ------------------------------------------------------------------------------------

    def _stat(self, path: str) -> ApiObject:
        try:
            return _facts(self._ctx.client().request("HEAD", self._url, {"path": path}))
        except NotFound:
            raise
        except KetchError:  # the answer to a HEAD has no message: that to a GET tells what is wrong
            self._ctx.client().request("GET", self._url, {"path": path}, stream=True).close()
            raise

    def _show(self, text: str) -> None:
        """Draw the progress in place; an empty text erases it."""
        if self._drawn and text != self._shown:
            self._shown = text
            self._ctx.err.write("\r\033[K" + text)
            self._ctx.err.flush()

    def _done(self, count: int, where: str) -> None:
        if self._drawn:
            self._ctx.warn(f"Successfully copied {human_size(count)} to {where}")


def _facts(response: Response) -> ApiObject:
    """The path's status from the daemon."""
    facts: ApiObject = documents.loads(base64.b64decode(response.headers[_STAT]))
    return facts


def _absolute_target(target: str, path: str) -> str:
    if target.startswith("/"):
        return target
    return posixpath.join(paths.split_entry(path)[0], target)
