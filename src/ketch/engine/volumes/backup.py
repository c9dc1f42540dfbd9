"""``volume backup`` and ``restore``: a volume's data as a tar stream, and back.

A backup reads the volume while containers may be writing to it: it is as consistent as a copy of a living directory
can be.  A restore goes into an empty volume, or with ``force`` takes the place of what is there: the archive is
unpacked beside it first, so that a broken one changes nothing.  Meanwhile nobody else can use or remove the volume.
What a restore leaves that ended with ketchd counts as nothing, and goes with the next one; of a restore whose archive
was unpacked the next start does the rest (`replacement`).
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from contextlib import aclosing
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio.transfer import BodyReader, written
from ketch.engine.volumes import replacement
from ketch.errors import Conflict
from ketch.storage.archive import compression
from ketch.storage.archive.extract import extract
from ketch.storage.archive.write import write_tree
from ketch.storage.removal import remove_tree
from ketch.threads import in_own_thread
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.model.volume import Volume
    from ketch.engine.volumes.store import VolumeStore


class VolumeBackups(Struct, frozen=True, eq=False):
    """Backups of all volumes."""

    volumes: VolumeStore
    store: ContainerStore
    tasks: BackgroundTasks

    async def backup(self, name: str) -> AsyncGenerator[bytes, None]:
        """The volume's content as tar, in chunks (NotFound, Conflict: it is being restored)."""
        volume = self.volumes.get(name)
        user = secrets.token_hex(8)

        def work(target: IO[bytes]) -> None:
            with self.volumes.used([name], user):
                write_tree(volume.mountpoint, target)

        async with aclosing(written(self.tasks.start, work)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def restore(self, name: str, body: AsyncIterator[bytes], *, force: bool = False) -> Volume:
        """Fill a volume, which is made if it is not there, from a tar archive (plain, gzip, zstd …).

        Raises Conflict when it holds data and ``force`` is not given, while a running container uses it, or while it
        is being restored; InvalidArgument for a broken archive.
        """
        made = not self.volumes.has(name)
        volume = self.volumes.create(name)
        user = secrets.token_hex(8)
        running = [c.name for c in self.store.all() if c.state.running and c.id in self.volumes.used_by(name)]
        reader = BodyReader(body, asyncio.get_running_loop())
        try:
            if running:
                raise Conflict(f"restore volume {name}: running containers use it: {', '.join(running)}")
            with self.volumes.filled(name, user):
                await in_own_thread(lambda: self._restore(volume, user, io.BufferedReader(reader, 1 << 20), force))
        except BaseException:
            await reader.abandon()
            if made:
                await self.volumes.remove(name)
            raise
        return volume

    def _restore(self, volume: Volume, user: str, source: IO[bytes], force: bool) -> None:
        self.volumes.attach([volume.name], user)
        try:
            replacement.finish(volume.mountpoint, self.volumes.journal_of(volume.name))
            _check_empty(volume, force)
            with Undo() as undo:
                unpacked = replacement.begin(volume.mountpoint)
                undo.callback(remove_tree, unpacked)
                with compression.reader(source, "archive") as plain:
                    extract(plain, unpacked, layer=False)
                _check_empty(volume, force)  # somebody on this machine may have written since
                undo.pop_all()
            replacement.replace(unpacked, self.volumes.journal_of(volume.name))
        finally:
            self.volumes.detach([volume.name], user)


def _check_empty(volume: Volume, force: bool) -> None:
    """Raise Conflict when there is anything that a restore without ``force`` must not touch."""
    if not force and any(not replacement.is_leftover(name) for name in os.listdir(volume.mountpoint)):
        raise Conflict(f"restore volume {volume.name}: it is not empty", hint="use --force to replace what it holds")
