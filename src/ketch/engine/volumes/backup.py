"""``volume backup`` and ``restore``: a volume's data as a tar stream, and back.

A backup reads the volume while containers may be writing to it: it is as consistent as a copy of a living directory
can be.  A restore goes into an empty volume, or with ``force`` takes the place of what is there: the archive is
unpacked beside it first, so that a broken one changes nothing.
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio.transfer import BodyReader, written
from ketch.errors import Conflict
from ketch.storage.archive import compression
from ketch.storage.archive.extract import extract
from ketch.storage.archive.write import write_tree
from ketch.storage.removal import remove_tree
from ketch.threads import in_own_thread
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.model.volume import Volume
    from ketch.engine.volumes.store import VolumeStore


class VolumeBackups(Struct, frozen=True, eq=False):
    """Backups of all volumes."""

    volumes: VolumeStore
    store: ContainerStore
    tasks: BackgroundTasks

    async def backup(self, name: str) -> AsyncIterator[bytes]:
        """The volume's content as tar, in chunks (NotFound)."""
        volume = self.volumes.get(name)
        user = secrets.token_hex(8)

        def work(target: IO[bytes]) -> None:
            self.volumes.attach([name], user)
            try:
                write_tree(volume.mountpoint, target)
            finally:
                self.volumes.detach([name], user)

        async for chunk in written(self.tasks.start, work):
            yield chunk

    async def restore(self, name: str, body: AsyncIterator[bytes], *, force: bool = False) -> Volume:
        """Fill a volume, which is made if it is not there, from a tar archive (plain, gzip, zstd …).

        Raises Conflict when it holds data and ``force`` is not given, or while a running container uses it;
        InvalidArgument for a broken archive.
        """
        made = not self.volumes.has(name)
        volume = self.volumes.create(name)
        running = [c.name for c in self.store.all() if c.state.running and c.id in self.volumes.used_by(name)]
        reader = BodyReader(body, asyncio.get_running_loop())
        try:
            if running:
                raise Conflict(f"restore volume {name}: running containers use it: {', '.join(running)}")
            await in_own_thread(lambda: self._restore(volume, io.BufferedReader(reader, 1 << 20), force))
        except BaseException:
            await reader.abandon()
            if made:
                await self.volumes.remove(name)
            raise
        return volume

    def _restore(self, volume: Volume, source: IO[bytes], force: bool) -> None:
        user = secrets.token_hex(8)
        self.volumes.attach([volume.name], user)
        try:
            present = os.listdir(volume.mountpoint)
            if present and not force:
                raise Conflict(
                    f"restore volume {volume.name}: it is not empty", hint="use --force to replace what it holds"
                )
            # Beside the data and on the same file system: the last step is renaming.
            staging = os.path.join(volume.mountpoint, f".ketch-restore-{user}")
            os.mkdir(staging, 0o700)
            with Undo() as undo:
                undo.callback(remove_tree, staging)
                with compression.reader(source, "archive") as plain:
                    extract(plain, staging, layer=False)
                for name in present:
                    remove_tree(os.path.join(volume.mountpoint, name))
                status = os.stat(staging)
                for name in os.listdir(staging):
                    os.rename(os.path.join(staging, name), os.path.join(volume.mountpoint, name))
            os.chown(volume.mountpoint, status.st_uid, status.st_gid)
            os.chmod(volume.mountpoint, status.st_mode & 0o7777)
            os.utime(volume.mountpoint, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            self.volumes.detach([volume.name], user)
