"""The handing over of directories, sockets and files to ketchd: as descriptors, or as archives in the request.

On a local socket a request names descriptors of this process, which ketchd copies, or which are sent to it where it may
not.  Elsewhere the directories follow as one tar, each below a number of its own.
"""

from __future__ import annotations

import os

from ketch import dockerignore
from ketch.cli.building.outputs import Sink
from ketch.errors import InvalidArgument, Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from ketch.cli.building.request import BuildRequest, Request

_PATH = 0o10000000  # O_PATH
_CONTEXT = "context"
_FAR = "the daemon is not on this machine, behind a relay, or another user's"


class Delivery:
    """All of one request that is not text; what it opens is closed by ``stack``."""

    def __init__(self, build: BuildRequest, stack: ExitStack, *, by_descriptor: bool) -> None:
        self._build, self._stack, self._by_descriptor = build, stack, by_descriptor
        self._packed: list[tuple[str, dockerignore.IgnoreRules]] = []
        self.sinks: dict[int, Sink] = {}
        self.descriptors: list[int] = []  # that the request names
        self.request: Request = {
            **build.fields(),
            "directories": self._directories(),
            "ssh": {name: self._agent(name, path) for name, path in build.agents.items()},
            "cache_from": [self._cache(kind, attributes, "src") for kind, attributes in build.cache_from],
            "cache_to": [self._cache(kind, attributes, "dest") for kind, attributes in build.cache_to],
            "outputs": self._outputs(),
        }

    def _directories(self) -> dict[str, str]:
        place = self._build.place
        found = {}
        if place.archive is not None:
            found[_CONTEXT] = "archive"
        elif not place.remote:
            found[_CONTEXT] = self._directory(place.directory or self._empty(), self._rules())
        for name, path in self._build.contexts.directories.items():
            found[name] = self._directory(path, self._rules_in(path))
        return found

    def _rules(self) -> dockerignore.IgnoreRules:
        text = self._build.place.dockerfile
        return dockerignore.read((text.ignore or b"").decode(errors="replace") if text else "")

    def _rules_in(self, path: str) -> dockerignore.IgnoreRules:
        """The rules of a further context: those of its own file."""
        if self._by_descriptor:
            return dockerignore.IgnoreRules(())
        try:
            with open(os.path.join(path, dockerignore.DEFAULT), encoding="utf-8", errors="replace") as f:
                return dockerignore.read(f.read())
        except FileNotFoundError:
            return dockerignore.IgnoreRules(())

    def _empty(self) -> str:
        import tempfile  # here: of few builds the context is empty, and each start would pay for it

        return self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ketch-build-"))

    def _directory(self, path: str, rules: dockerignore.IgnoreRules) -> str:
        if self._by_descriptor:
            return self._opened(path, os.O_RDONLY | os.O_DIRECTORY)
        if self._build.place.archive is not None:
            raise Unimplemented(
                f"send an archive from standard input and further directories: {_FAR}",
                hint="unpack the archive, and give its directory",
            )
        self._packed.append((path, rules))
        return f"tar:{len(self._packed) - 1}"

    def _opened(self, path: str, flags: int) -> str:
        try:
            fd = os.open(path, flags | os.O_CLOEXEC)
        except OSError as e:
            raise InvalidArgument(f"open `{path}`: {e.strerror}") from e
        self._stack.callback(os.close, fd)
        return self._handed(fd)

    def _handed(self, fd: int) -> str:
        """A descriptor of this process on the wire, with what it means."""
        self.descriptors.append(fd)
        status = os.fstat(fd)
        return f"fd:{fd}:{status.st_dev}:{status.st_ino}"

    def _agent(self, name: str, path: str) -> str:
        if not self._by_descriptor:
            raise Unimplemented(
                f"--ssh {name}: {_FAR}, so it cannot reach the agent",
                hint="build as the daemon's user on the machine where the agent runs, by the daemon's own socket",
            )
        return self._opened(path, _PATH)

    def _cache(self, kind: str, attributes: dict[str, str], place: str) -> Request:
        path = attributes.get(place, "")
        if kind != "local" or not path:
            return {"type": kind, "attrs": attributes}
        if not self._by_descriptor:
            raise Unimplemented(
                f"cache in the directory `{path}`: {_FAR}",
                hint="use a registry (type=registry,ref=…)",
            )
        if place == "dest":
            os.makedirs(path, exist_ok=True)
        return {"type": kind, "attrs": {**attributes, place: self._opened(path, os.O_RDONLY | os.O_DIRECTORY)}}

    def _outputs(self) -> list[Request]:
        found: list[Request] = []
        for number, output in enumerate(self._build.outputs):
            row: Request = {"type": output.kind, "attrs": output.attributes, "to": ""}
            if output.comes_here:
                sink = self.sinks[number] = Sink(output, self._stack)
                row["to"] = self._handed(sink.fd) if self._by_descriptor else "stream"
            found.append(row)
        return found

    def body(self) -> Iterator[bytes]:
        """The bytes behind the request's line; none where all is handed over."""
        if self._build.place.archive is not None:
            yield from self._build.place.archive
        if not self._packed:
            return
        from ketch.client import context_tar  # here: on a unix socket there is no tar

        for number, (path, rules) in enumerate(self._packed):
            yield context_tar.directory(str(number))  # there may be nothing in it
            yield from context_tar.pack(path, rules, f"{number}/")
        yield context_tar.END
