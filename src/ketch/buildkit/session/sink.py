"""A client's exporter as a destination of what a build gives."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from ketch.engine.aio.transfer import written
from ketch.engine.build.exports.sinks import write_trees

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.buildkit.session.client import ClientSession
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.build.exports.sinks import NamedTree, Write


class ClientSink:
    """An `OutputSink` at the other end of a connection; ``exporter`` is its number among the client's."""

    def __init__(
        self, session: ClientSession, snapshots: BuildSnapshots, tasks: BackgroundTasks, exporter: int
    ) -> None:
        self._session, self._snapshots, self._tasks, self._exporter = session, snapshots, tasks, exporter

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Send the archive that ``write`` writes (KetchError)."""
        async with aclosing(written(self._tasks.start, write)) as pieces:
            await self._session.send_file(self._exporter, metadata, pieces)

    async def files(self, trees: Sequence[NamedTree]) -> None:
        """Send trees of files, each below its name (KetchError)."""
        for one in trees:
            with self._snapshots.opened(one.tree) as fd:
                await self._session.send_directory(self._exporter, fd, one.name)


class ClientTarSink(ClientSink):
    """The same for an exporter that takes trees as one archive."""

    async def files(self, trees: Sequence[NamedTree]) -> None:
        """Send trees of files as a tar (KetchError)."""
        await self.archive(lambda file: write_trees(self._snapshots, trees, file), {})
