"""Builds of Ketch's own API whose Dockerfile another front end reads: an image that the file names."""

from __future__ import annotations

import asyncio
import os
import posixpath
from typing import TYPE_CHECKING

from ketch.engine.build.attests import facts
from ketch.engine.build.frontends import syntax
from ketch.engine.build.frontends.bridge import FrontendRequest
from ketch.engine.build.frontends.subrequests import CALLS
from ketch.engine.build.run import contexts
from ketch.engine.build.run.contexts import MAIN
from ketch.engine.model.building.builds import BuildResult
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack

    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.engine.build.frontends.results import FrontendResult
    from ketch.engine.build.frontends.syntax import ForeignSyntax
    from ketch.engine.build.run.session import RequestSession
    from ketch.engine.model.building.builds import GivenDockerfile, ImageBuild

_DOCKERFILE = "dockerfile"  # the directory that has the file
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class ForeignBuild:
    """One; its session serves the file in a directory, as a client of BuildKit's does."""

    def __init__(self, request: ImageBuild, file: FoundDockerfile, asked: ForeignSyntax) -> None:
        self._request, self._file, self._asked = request, file, asked

    async def solve(self, bridge: Bridge, session: RequestSession, root: str, stack: AsyncExitStack) -> FrontendResult:
        """The front end's result (KetchError); ``root``: where the file is put that came with the request."""
        given = self._request.dockerfile
        if given is not None:
            directory = await contexts.empty(root, stack)
            await asyncio.to_thread(_put, directory.fd, given)
            session.add(_DOCKERFILE, directory.fd)
        elif not self._request.remote:
            session.also(_DOCKERFILE, MAIN)
        caches = [] if self._request.call != "build" else self._request.cache_from
        request = FrontendRequest(attrs=self._attributes(), caches=caches)
        return await syntax.solve(bridge, request, self._asked, self._file)

    def _attributes(self) -> Mapping[str, str]:
        request = self._request
        name = posixpath.basename(self._file.name) if request.dockerfile is not None else self._file.name
        found = dict(facts.attributes(request, name))
        if request.platforms:
            found["platform"] = ",".join(request.platforms)
        if request.cgroup_parent:
            found["cgroup-parent"] = request.cgroup_parent
        found["image-resolve-mode"] = "pull" if request.pull else "local"
        if request.call != "build":
            found["requestid"] = _call(request.call)
        return found

    def answer(self, result: FrontendResult) -> BuildResult:
        """The answer of a call that builds nothing."""
        texts = {name: data.decode("utf-8", "replace") for name, data in result.metadata.items()}
        status = texts.pop("result.statuscode", "0")
        return BuildResult(metadata={**texts, "result.statuscode": int(status) if status.isdecimal() else 1})


def _call(name: str) -> str:
    """A call by its full name (InvalidArgument)."""
    short = "lint" if name == "check" else name.removeprefix("subrequests.")
    found = next((full for full, (one, _) in CALLS.items() if one == short), None)
    if found is None:
        raise InvalidArgument(f'invalid call "{name}"', hint="known: check, outline, targets")
    return found


def _put(directory: int, given: GivenDockerfile) -> None:
    """Write a file, and its rules beside it, into a directory.  Blocking."""
    name = posixpath.basename(given.name)
    rules = {} if given.ignore is None else {f"{name}.dockerignore": given.ignore}
    for path, data in {name: given.data, **rules}.items():
        with open(os.open(path, _CREATE, 0o644, dir_fd=directory), "wb") as file:
            file.write(data)
