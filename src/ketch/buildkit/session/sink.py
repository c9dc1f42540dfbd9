"""A client's exporter as a destination of what a build gives."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING

from ketch.buildkit.session.worker import Worker
from ketch.engine.aio.transfer import BodyReader, written
from ketch.engine.build.exports.sinks import write_trees
from ketch.oci.manifest import Descriptor
from ketch.storage.archive import tar
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.buildkit.session.client import ClientSession
    from ketch.buildkit.session.content import ClientLayout
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.build.exports.sinks import NamedTree, Write

_EXPORT = "export"  # a client's name of the directory that an output goes to
_BLOBS = "blobs/sha256/"


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
            opened = ExitStack()  # mounts are made and taken down in threads
            try:
                fd = await run_to_end(opened.enter_context, self._snapshots.opened(one.tree))
                await self._session.send_directory(self._exporter, fd, one.name)
            finally:
                await run_to_end(opened.close)


class ClientTarSink(ClientSink):
    """The same for an exporter that takes trees as one archive."""

    async def files(self, trees: Sequence[NamedTree]) -> None:
        """Send trees of files as a tar (KetchError)."""
        await self.archive(lambda file: write_trees(self._snapshots, trees, file), {})


class ClientLayoutSink(ClientSink):
    """The same for an exporter whose archive is to be a directory: the client keeps the blobs, and writes the index."""

    async def archive(self, write: Write, metadata: Mapping[str, str]) -> None:
        """Send the blobs of the archive that ``write`` writes (KetchError)."""
        del metadata
        layout = self._session.store(_EXPORT)
        async with aclosing(written(self._tasks.start, write)) as pieces:
            body = BodyReader(pieces, asyncio.get_running_loop())
            try:
                with Worker("layout") as worker:
                    await worker.run(_put_blobs, body, layout)
            finally:
                await body.abandon()


def _put_blobs(archive: BodyReader, layout: ClientLayout) -> None:
    """Write the blobs of an archive to a layout."""
    reader = tar.TarReader(archive)
    for member in reader:
        name = member.name.removeprefix(_BLOBS)
        if member.kind == tar.FILE and name != member.name:
            blob = Descriptor(media_type="", digest=f"sha256:{name}", size=member.size)
            layout.put(blob, (bytes(piece) for _, piece in reader.chunks(member)))
