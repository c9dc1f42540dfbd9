"""``volume backup`` and ``restore``: a volume's data as a tar stream, and back; and copies of one into another.

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
from contextlib import aclosing, asynccontextmanager
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio.transfer import BodyReader, written
from ketch.engine.volumes import replacement
from ketch.errors import Conflict, InvalidArgument, Unavailable
from ketch.storage.archive import compression
from ketch.storage.archive.extract import extract
from ketch.storage.archive.write import write_tree
from ketch.storage.removal import remove_tree
from ketch.storage.tree_copy import Copier
from ketch.threads import in_own_thread
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.model.volume import Volume
    from ketch.engine.volumes.store import VolumeStore
    from ketch.storage.archive.owners import Owners

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PROGRESS_S = 0.2


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
        reader = BodyReader(body, asyncio.get_running_loop())
        source = io.BufferedReader(reader, 1 << 20)

        def unpack(directory: str) -> None:
            with compression.reader(source, "archive") as plain:
                extract(plain, directory, layer=False)

        try:
            async with self._filled(name) as (volume, user):
                await in_own_thread(lambda: self._fill(volume, user, unpack, force))
        except BaseException:
            await reader.abandon()
            raise
        return volume

    async def copy(self, name: str, source: str, owners: Owners | None = None) -> AsyncGenerator[int, None]:
        """Fill a volume, as `restore` does without force, with the files of another one; yields bytes copied so far.

        ``owners``: the user namespace whose files these are, if the copies are to belong to the users inside of it.
        """
        if self.volumes.get(source).name == name:
            raise InvalidArgument(f"copy volume {name}: into itself")
        work = _Copy(owners)
        async with self._filled(name) as (volume, user):

            def copy(directory: str) -> None:
                with self.volumes.used([source], user):
                    work.copy(self.volumes.get(source).mountpoint, directory)

            task = self.tasks.start(in_own_thread(lambda: self._fill(volume, user, copy, False)))
            try:
                while not task.done():
                    await asyncio.wait([task], timeout=_PROGRESS_S)
                    if not task.done():
                        yield work.size
                await task
            finally:
                work.wanted = False
                await asyncio.wait([task])
        yield work.size

    @asynccontextmanager
    async def _filled(self, name: str) -> AsyncIterator[tuple[Volume, str]]:
        """A time in which one user alone fills a volume, which is made if it is not there, and goes if that fails."""
        made = not self.volumes.has(name)
        volume = self.volumes.create(name)
        user = secrets.token_hex(8)
        running = [c.name for c in self.store.all() if c.state.running and c.id in self.volumes.used_by(name)]
        try:
            if running:
                raise Conflict(f"restore volume {name}: running containers use it: {', '.join(running)}")
            with self.volumes.filled(name, user):
                yield volume, user
        except BaseException:
            if made:
                await self.volumes.remove(name)
            raise

    def _fill(self, volume: Volume, user: str, fill: Callable[[str], None], force: bool) -> None:
        """Have a new directory filled, and what is in it take the place of the volume's content."""
        self.volumes.attach([volume.name], user)
        try:
            replacement.finish(volume.mountpoint, self.volumes.journal_of(volume.name))
            _check_empty(volume, force)
            with Undo() as undo:
                unpacked = replacement.begin(volume.mountpoint)
                undo.callback(remove_tree, unpacked)
                fill(unpacked)
                _check_empty(volume, force)  # somebody on this machine may have written since
                undo.pop_all()
            replacement.replace(unpacked, self.volumes.journal_of(volume.name))
        finally:
            self.volumes.detach([volume.name], user)


class _Copy:
    """A copy of a directory's content, in a thread, of which the event loop reads how far it is."""

    def __init__(self, owners: Owners | None) -> None:
        self.wanted, self._owners = True, owners
        self._copier: Copier | None = None

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._copier.size if self._copier is not None else 0

    def copy(self, source: str, target: str) -> None:
        """Copy everything (Unavailable: nobody wants it any more)."""
        source_fd = os.open(source, _DIRECTORY)
        try:
            target_fd = os.open(target, _DIRECTORY)
            try:
                self._copier = Copier(target_fd, self._check, self._owners)
                self._copier.tree(source_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _check(self) -> None:
        if not self.wanted:
            raise Unavailable("copy a volume: the client went away")


def _check_empty(volume: Volume, force: bool) -> None:
    """Raise Conflict when there is anything that a restore without ``force`` must not touch."""
    if not force and any(not replacement.is_leftover(name) for name in os.listdir(volume.mountpoint)):
        raise Conflict(f"restore volume {volume.name}: it is not empty", hint="use --force to replace what it holds")
