"""Destinations of what a build's client gets: one archive into a descriptor or into the answer, or trees of files."""

from __future__ import annotations

import io
import os
import stat
import threading
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from ketch.engine.aio.transfer import written
from ketch.engine.os_errors import explained
from ketch.errors import InvalidArgument, Unavailable
from ketch.storage.archive.write import Gathered, TreeWriter
from ketch.threads import in_own_thread
from ketch.trees import Descent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.build.tree import Tree
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.model.building.builds import OutputRequest

    Write = Callable[[IO[bytes]], None]

_PIECE = 64 << 10  # bytes of an output that are told at once


class NamedTree(NamedTuple):
    """A tree of files, and the directory that it gets; without a name it is all that there is."""

    name: str
    tree: Tree


class OutputPieces(Protocol):
    """One who passes bytes of outputs on, as a build's listener does."""

    def output(self, index: int, data: bytes) -> None:
        """Take bytes of an output."""
        ...

    async def room(self) -> None:
        """Wait until more may come."""
        ...


class OutputSink(Protocol):
    """One who takes what an output gives."""

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Take the archive that ``write`` writes, in a thread of its own; ``metadata`` is of the image (KetchError)."""
        ...

    async def files(self, trees: Sequence[NamedTree]) -> None:
        """Take trees of files (KetchError)."""
        ...


class ArchiveSink:
    """A sink for which trees of files are one archive, too."""

    def __init__(self, snapshots: BuildSnapshots) -> None:
        self._snapshots = snapshots

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Take an archive."""
        raise NotImplementedError

    async def files(self, trees: Sequence[NamedTree]) -> None:
        """Take trees as one archive."""
        await self.archive(lambda file: write_trees(self._snapshots, trees, file), {})


class _File(io.FileIO):
    """A descriptor, which is closed with it; once it is ``stopped`` nothing is written any more (Unavailable)."""

    def __init__(self, fd: int, stopped: threading.Event) -> None:
        super().__init__(fd, "wb")
        self._stopped = stopped

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        """Write bytes."""
        if self._stopped.is_set():
            raise Unavailable("write an output: the build was cancelled")
        return super().write(data)


class DescriptorSink(ArchiveSink):
    """An open file or pipe of the client, which stays the caller's."""

    def __init__(self, snapshots: BuildSnapshots, output: OutputRequest) -> None:
        super().__init__(snapshots)
        self._kind, self._fd = output.kind, output.fd

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Write the archive (Unavailable: nobody reads)."""
        del metadata
        if self._fd < 0:
            raise InvalidArgument(f"output `{self._kind}`: where to is not told", hint="give dest=PATH")
        fd = os.dup(self._fd)

        stopped = threading.Event()

        def work() -> None:
            try:
                with io.BufferedWriter(_File(fd, stopped), _PIECE) as file:  # type: ignore[type-var]
                    write(file)
            except BrokenPipeError as e:
                raise Unavailable(f"output `{self._kind}`: its reader is gone") from e
            except OSError as e:
                raise explained(e, f"output `{self._kind}`") from e

        try:
            await in_own_thread(work)
        finally:
            stopped.set()


class StreamSink(ArchiveSink):
    """The events of a build, as output of a number."""

    def __init__(self, snapshots: BuildSnapshots, tasks: BackgroundTasks, listener: OutputPieces, number: int) -> None:
        super().__init__(snapshots)
        self._tasks, self._listener, self._number = tasks, listener, number

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Tell the archive, as fast as the client reads."""
        del metadata
        async with aclosing(written(self._tasks.start, write)) as chunks:
            async for chunk in chunks:
                for begin in range(0, len(chunk), _PIECE):
                    await self._listener.room()
                    self._listener.output(self._number, chunk[begin : begin + _PIECE])


def check_apart(snapshots: BuildSnapshots, trees: Sequence[tuple[str, Tree]]) -> None:
    """Refuse trees, each with whose it is, that have a file at the same place (InvalidArgument).  Blocking."""
    owners: dict[str, str] = {}
    for owner, tree in trees:
        with snapshots.opened(tree) as fd, Descent(fd) as at:
            for name in at.walk():
                if name is None:
                    continue
                if stat.S_ISDIR(os.stat(name, dir_fd=at.fd, follow_symlinks=False).st_mode):
                    at.enter(name)
                elif (other := owners.setdefault(at.prefix + name, owner)) != owner:
                    path = os.fsencode(at.prefix + name).decode("utf-8", "replace")
                    raise InvalidArgument(
                        f"cannot overwrite {path} from {other} with {owner} when split option is disabled"
                    )


def write_trees(snapshots: BuildSnapshots, trees: Sequence[NamedTree], file: IO[bytes]) -> None:
    """Write trees as one tar.  Blocking."""
    out = Gathered(file.write)
    for one in trees:
        writer = TreeWriter(file.write, out)  # files of two trees are no links of each other
        with snapshots.opened(one.tree) as fd:
            if one.name:
                writer.directory(fd, one.name)
            else:
                writer.content(fd, "")
    TreeWriter(file.write, out).end()
