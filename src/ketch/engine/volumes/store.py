"""Volumes: directories under the data root that outlive every container.

volumes/<name>/_data      what containers see; what is mounted there for volumes with options (`local_driver`)
volumes/<name>/restoring  the restore that goes on, or was broken off (`replacement`)
CREATE TABLE volumes (name, record)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import secrets
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.engine import os_errors
from ketch.engine.model.volume import ANONYMOUS, Volume
from ketch.engine.volumes import local_driver, replacement
from ketch.errors import Conflict, DataLoss, InvalidArgument, KetchError, NotFound, Unavailable
from ketch.failpoints import failpoint
from ketch.storage.database.db import REPAIR, Schema
from ketch.storage.database.records import Form, Records
from ketch.storage.removal import remove_tree, try_to_remove
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from sqlite3 import Connection

    from ketch.storage.database.db import Database

Strings = list[str]
log = logging.getLogger(__name__)
_REMOVAL = "(removal)"
_GONE = ".gone-"  # no volume can have such a name
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


FORM = Form(Volume)
SCHEMA = Schema(
    "volumes",
    ("CREATE TABLE volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL)",),
    {"volumes": FORM.version},
)


class VolumeStore:
    """All volumes; ``in_use(name)`` tells which containers (ids) refer to a volume.

    ``attach`` and ``detach`` may be called from any thread; they matter to volumes with options only.  The rest
    is the event loop's, and a volume whose removal has begun cannot be had by anybody.
    """

    def __init__(
        self,
        db: Database,
        data_root: str,
        in_use: Callable[[str], list[str]],
        later: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        """``later`` runs removals in the background."""
        self._db = db
        self._later = later
        self.data_root = data_root
        self._root = os.path.join(data_root, "volumes")
        self._in_use = in_use
        self._lock = threading.Lock()
        self._attached: dict[str, set[str]] = {}
        self._records = Records(FORM)
        self._volumes: dict[str, Volume] = {}
        self._unreadable: set[str] = set()
        self._going: dict[str, asyncio.Task[None]] = {}  # removals that have begun
        self._interrupted = asyncio.Event()
        self._held: Counter[str] = Counter()  # volumes that must not be restored now
        self._counting = threading.Lock()
        self._filled: dict[str, str] = {}  # volumes that are being restored, and by whom
        self._claims: dict[str, set[str]] = {}  # volumes of containers whose rows are yet to be written
        for row in db.query("SELECT * FROM volumes"):
            try:
                volume = self._records.read(row["name"], row["record"])
                volume.mountpoint = self.path_of(row["name"])
                self._volumes[row["name"]] = volume
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as e:
                self._unreadable.add(row["name"])
                log.error("the row of volume %s cannot be read; it and its data are left alone: %s", row["name"], e)

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        made_for: str = "",
    ) -> Volume:
        """Make a volume, or return the one that already has this name; an empty name makes an anonymous one.

        ``made_for`` is the container that it is made with: it cannot be removed until that one's row is written (see
        `made`), or given up (`discard`, `release`).
        Durable after `flush`.
        """
        if driver not in ("", "local"):
            what = f"create {name}: " if name else ""
            raise NotFound(f'{what}error looking up volume plugin {driver}: plugin "{driver}" not found')
        anonymous = not name or ANONYMOUS in (labels or {})
        name = name or secrets.token_hex(32)
        _check_name(name)
        self._check_stays(name)
        if (existing := self._volumes.get(name)) is not None:
            if existing.pending and existing.pending != made_for:  # somebody else relies on it now: it stays
                with self._db.transaction(durable=False) as tx:
                    self._mark(tx, [name], "")
            self._claim(name, made_for)
            return existing
        self._check_readable(name)
        local_driver.check(name, options or {})
        path = self.path_of(name)
        volume = Volume(
            name=name,
            mountpoint=path,
            created=time.time_ns(),
            labels=labels or {},
            options=options or {},
            anonymous=anonymous,
            pending=made_for,
        )
        os.makedirs(path, mode=0o755, exist_ok=True)
        try:
            failpoint("volume.directory-made")
            with self._db.transaction(durable=False, grows=True) as tx:
                tx.execute("INSERT INTO volumes VALUES (?, ?)", (name, self._records.write(name, volume)))
        except BaseException:
            self._remove_empty(name)
            raise
        self._volumes[name] = volume
        self._claim(name, made_for)
        return volume

    def _claim(self, name: str, made_for: str) -> None:
        if made_for:
            self._claims.setdefault(made_for, set()).add(name)

    def release(self, made_for: str) -> None:
        """Let go of the volumes of a container's creation: its row holds them now, or nobody does."""
        self._claims.pop(made_for, None)

    @contextlib.contextmanager
    def made(self, names: Sequence[str], made_for: str) -> Iterator[Callable[[Connection], None]]:
        """A step that marks volumes as completely made, for the caller's transaction inside of the context.

        That writes the row of the container that they were made for, which holds them from then on.
        """
        before = [(volume, volume.pending) for name in names if (volume := self._volumes.get(name)) is not None]
        try:
            yield lambda tx: self._mark(tx, names, "")
        except BaseException:
            for volume, pending in before:
                volume.pending = pending
            raise
        self.release(made_for)

    def mark_for_removal(self, names: Sequence[str]) -> Callable[[Connection], None]:
        """Mark volumes for removal, in the caller's transaction."""
        return lambda tx: self._mark(tx, names, _REMOVAL)

    def _mark(self, tx: Connection, names: Sequence[str], pending: str) -> None:
        for name in names:
            volume = self._volumes.get(name)
            if volume is not None and volume.pending != pending:
                volume.pending = pending
                record = self._records.write(name, volume)
                tx.execute("UPDATE volumes SET record = ? WHERE name = ?", (record, name))

    async def discard(self, made_for: str) -> None:
        """Remove the volumes made for a container whose creation failed; the files are deleted in the background."""
        self.release(made_for)
        for volume in [v for v in self._volumes.values() if v.pending == made_for and not self.used_by(v.name)]:
            await asyncio.shield(self._go(volume, self._discard(volume)))

    async def _discard(self, volume: Volume) -> None:
        gone = await in_own_thread(lambda: self._move_aside(volume))
        self._forget(volume)
        self._later(functools.partial(try_to_remove, gone))

    def finish_pending(self) -> None:
        """Finish, at the daemon's start, interrupted creations and removals of volumes without a user.

        The names are free at once; the files are deleted in the background, and again by the next start.
        """
        for volume in [v for v in self._volumes.values() if v.pending]:
            if self._in_use(volume.name):
                with self._db.transaction(durable=False) as tx:
                    self._mark(tx, [volume.name], "")
                continue
            try:
                self._move_aside(volume)
                self._forget(volume)
            except (KetchError, OSError) as e:
                log.warning("remove volume %s, which was left half-done: %s", volume.name, e)
        self._finish_restores()
        for name in os.listdir(self._root) if os.path.isdir(self._root) else ():
            if name in self._volumes or name in self._unreadable:
                continue
            if name.startswith(_GONE):
                self._later(functools.partial(try_to_remove, os.path.join(self._root, name)))
                continue
            self._remove_empty(name)  # made by `create` just before the crash; with content, it is somebody's
            if os.path.isdir(path := self.path_of(name)):
                log.warning("`%s` belongs to no volume that is known and is left alone; %s", path, REPAIR)

    def _finish_restores(self) -> None:
        """Finish the restores that a crash broke off; those of volumes that need a mount when they are mounted."""
        for volume in self._volumes.values():
            if not local_driver.is_needed(volume.options):
                try:
                    replacement.finish(volume.mountpoint, self.journal_of(volume.name), self._new_gone())
                except OSError as e:
                    log.error("finish the restore of volume %s: %s: %s", volume.name, e.filename, e.strerror)

    def _move_aside(self, volume: Volume) -> str:
        """Rename a volume's directory away, before its files are removed; returns its new path."""
        gone = self._new_gone()
        with self._lock:
            local_driver.unmount(volume.mountpoint)  # never delete through a mount
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.dirname(volume.mountpoint), gone)
        return gone

    def _new_gone(self) -> str:
        """A path for what is to be removed in the background, and by each start."""
        return os.path.join(self._root, _GONE + secrets.token_hex(8))

    def _remove_empty(self, name: str) -> None:
        for path in (self.path_of(name), os.path.join(self._root, name)):
            with contextlib.suppress(OSError):  # it has content: then it is somebody's
                os.rmdir(path)

    def path_of(self, name: str) -> str:
        """The directory of a volume's files, whether the volume exists or not."""
        return os.path.join(self._root, name, "_data")

    def journal_of(self, name: str) -> str:
        """The path of a volume's journal of restores."""
        return os.path.join(self._root, name, "restoring")

    def has(self, name: str) -> bool:
        """Whether a volume of this name exists."""
        return name in self._volumes

    def get(self, name: str) -> Volume:
        """The volume of an exact name (NotFound)."""
        try:
            return self._volumes[name]
        except KeyError:
            self._check_readable(name)
            raise NotFound(f"get {name}: no such volume") from None

    def _check_readable(self, name: str) -> None:
        if name in self._unreadable:
            raise DataLoss(f"get {name}: the volume's row in the state database cannot be read", hint=REPAIR)

    def list(self) -> list[Volume]:
        """All volumes by name."""
        return sorted(self._volumes.values(), key=lambda v: v.name)

    def used_by(self, name: str) -> Strings:
        """Ids of the containers that refer to the volume, also of those that are being created."""
        users = self._in_use(name)
        return [*users, *(id_ for id_, names in self._claims.items() if name in names and id_ not in users)]

    async def flush(self) -> None:
        """Wait until earlier writes are durable."""
        await in_own_thread(self._db.sync)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Delete the volume and its data; Conflict while a container refers to it.

        What is mounted for it (another directory, a share) is unmounted and stays as it is.  ``force`` makes a missing
        volume no error.  The row is marked first and goes last, so that the next start finishes what a crash broke off.
        A caller that is cancelled does not end it.  Unavailable when the daemon's end does not let it finish.
        """
        while (going := self._going.get(name)) is not None:
            await self._end_of(going)
        if name not in self._volumes and force:
            return
        volume = self.get(name)
        if users := self.used_by(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self.check_usable([name])
        with self._db.transaction(durable=False) as tx:
            self._mark(tx, [name], _REMOVAL)
        failpoint("volume.removal-begun")
        removal = self._go(volume, self._remove(volume))
        await self._end_of(removal)
        removal.result()

    async def _end_of(self, removal: asyncio.Task[None]) -> None:
        """The end of a removal, whether it succeeds or not; Unavailable when the daemon's comes first."""
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait([removal, interrupted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if not removal.done():
            raise Unavailable("remove the volume: the daemon is stopping", hint="it goes on when the daemon runs again")

    def interrupt(self) -> None:
        """Have nobody wait for removals: the daemon is about to end, and its next start finishes them."""
        self._interrupted.set()

    def _go(self, volume: Volume, removal: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a removal; until its end nobody can have the volume."""
        task = self._going[volume.name] = asyncio.get_running_loop().create_task(removal)
        task.add_done_callback(lambda _: self._going.pop(volume.name))
        return task

    async def _remove(self, volume: Volume) -> None:
        await self.flush()  # a power cut must not leave a volume of which half is gone
        await in_own_thread(lambda: self._remove_files(volume))
        self._forget(volume)
        await self.flush()

    def _remove_files(self, volume: Volume) -> None:
        """Delete a volume's files; blocking."""
        with self._lock:
            local_driver.unmount(volume.mountpoint)  # never delete through a mount
            self._attached.pop(volume.name, None)
        try:
            remove_tree(os.path.dirname(volume.mountpoint))
        except OSError as e:
            raise os_errors.explained(e, f"remove volume {volume.name}") from e
        failpoint("volume.files-removed")

    def _forget(self, volume: Volume) -> None:
        with self._db.transaction(durable=False) as tx:
            tx.execute("DELETE FROM volumes WHERE name = ?", (volume.name,))
        self._records.forget(volume.name)
        del self._volumes[volume.name]

    def _check_stays(self, name: str) -> None:
        if name in self._going:
            raise Conflict(f"get {name}: the volume is being removed", hint="try again when it is gone")

    # -- volumes that are restored ----------------------------------------------------------------

    @contextlib.contextmanager
    def filled(self, name: str, user: str) -> Iterator[None]:
        """Have nobody but this ``user`` attach, start with or remove a volume (Conflict: another one does)."""
        self.check_usable([name])
        self._filled[name] = user
        try:
            if self._held[name]:
                raise Conflict(f"restore volume {name}: its files are in use, or a container that uses it starts")
            yield
        finally:
            del self._filled[name]

    @contextlib.contextmanager
    def _not_filled(self, names: Strings) -> Iterator[None]:
        """Have nobody restore these volumes (Conflict: somebody does); in any thread."""
        with self._counting:
            self._held.update(names)
        try:
            self.check_usable(names)
            yield
        finally:
            with self._counting:
                self._held.subtract(names)
                for name in names:
                    if not self._held[name]:
                        del self._held[name]

    @contextlib.contextmanager
    def used(self, names: Strings, user: str) -> Iterator[None]:
        """Attach volumes for a ``user`` who reads or writes them meanwhile, with all files of before or of later."""
        with self._not_filled(names):
            self.attach(names, user)
            try:
                yield
            finally:
                self.detach(names, user)

    @contextlib.contextmanager
    def starting(self, names: Strings) -> Iterator[None]:
        """Have nobody restore these volumes while a container that uses them starts (Conflict: somebody does).

        DataLoss for one of which a restore broke off that could not be finished.
        """
        with self._not_filled(names):
            self._check_whole(names)
            yield

    def _check_whole(self, names: Iterable[str]) -> None:
        for volume in (self._volumes[name] for name in names if name in self._volumes):
            mounted = local_driver.is_needed(volume.options)  # then it is finished with the mount
            if not mounted and os.path.exists(self.journal_of(volume.name)):
                raise DataLoss(
                    f"get {volume.name}: a restore of the volume broke off, and cannot be finished",
                    hint="the log of ketchd says why; restore it again with --force",
                )

    def check_usable(self, names: Iterable[str], user: str = "") -> None:
        """Raise Conflict while somebody else than the ``user`` restores one of these volumes."""
        for name in names:
            if self._filled.get(name, user) != user:
                raise Conflict(f"get {name}: the volume is being restored", hint="try again when it has all its files")

    # -- volumes that are mounted ----------------------------------------------------------------

    def needs_mount(self, names: Iterable[str]) -> Strings:
        """The volumes among these that need a mount."""
        return [n for n in names if n in self._volumes and local_driver.is_needed(self._volumes[n].options)]

    def check_directories(self, names: Iterable[str]) -> None:
        """Raise DataLoss, in Docker's words, when somebody has removed the directory of one of these volumes."""
        for volume in (self._volumes[name] for name in names if name in self._volumes):
            if not os.path.isdir(volume.mountpoint):
                raise DataLoss(
                    f'error evaluating symlinks from mount source "{volume.mountpoint}": '
                    f"lstat {volume.mountpoint}: no such file or directory",
                    hint=f"it is the directory of the volume {volume.name}: make it again, or remove the volume",
                )

    def attach(self, names: Iterable[str], user: str) -> None:
        """Mount these volumes for a ``user``, each once; blocking (a share may be remote).

        Raises KetchError (DataLoss when a volume's directory is gone, or a restore of it broke off for good); then
        nothing was mounted for this user.
        """
        done: list[str] = []
        names = list(names)
        self.check_usable(names, user)
        self.check_directories(names)
        self._check_whole(name for name in names if self._filled.get(name) != user)
        for name in self.needs_mount(names):
            volume = self.get(name)
            self._check_stays(name)
            try:
                with self._lock:
                    local_driver.mount(volume.name, volume.mountpoint, volume.options)
                    failpoint("volume.mounted")
                    replacement.finish(volume.mountpoint, self.journal_of(name))
                    self._attached.setdefault(name, set()).add(user)
            except BaseException as e:
                self.detach([*done, name], user)
                if isinstance(e, OSError):
                    raise os_errors.explained(e, f"mount volume {name}") from e
                raise
            done.append(name)

    def detach(self, names: Iterable[str], user: str) -> None:
        """Release a user's volumes; those without users are unmounted."""
        for name in self.needs_mount(names):
            with self._lock:
                users = self._attached.get(name, set())
                users.discard(user)
                if not users:
                    local_driver.unmount(self.get(name).mountpoint)

    def unmount_unused(self) -> None:
        """Unmount volumes without users, after a restart that has attached all running containers."""
        for name in self.needs_mount(list(self._volumes)):
            self.detach([name], "")


def _check_name(name: str) -> None:
    """Raise InvalidArgument, in Docker's words, for what cannot be a volume's name."""
    if len(name.encode(errors="replace")) < 2:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.match(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > 255:
        raise InvalidArgument(f"create {name[:32]}…: a volume's name has at most 255 characters")
