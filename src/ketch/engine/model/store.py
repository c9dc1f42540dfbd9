"""The store of containers' records: rows in the state database, mirrored in memory.

    CREATE TABLE containers (id, name UNIQUE, record)     record = Container as JSON (`storage.database.records`)

Reads never touch the disk; every write is a transaction that is durable when it returns, or, where the caller says
so, after `flush`.  The mirror is
changed only from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.aio.group_commit import GroupCommit
from ketch.engine.model.records import Container
from ketch.errors import AlreadyExists, DataLoss, InvalidArgument, KetchError, NotFound
from ketch.storage.database.db import REPAIR, Schema
from ketch.storage.database.records import Form, Records
from ketch.storage.database.removals import Removals

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.database.db import Database

    Also = Callable[[sqlite3.Connection], None]

FORM = Form(Container, identify={"mounts": "Destination", "Mounts": "Target"})
SCHEMA = Schema(
    "containers",
    ("CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)",),
    {"containers": FORM.version},
)
log = logging.getLogger(__name__)


class ContainerStore:
    """All containers of one daemon."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._commit = GroupCommit(db.sync)
        self._records = Records(FORM)
        self._by_id: dict[str, Container] = {}
        self._ids: dict[str, str] = {}
        self._unsaved: set[str] = set()
        self.removals = Removals(db, "containers/")
        self._written = self._on_disk = 0  # changes that are to be durable, and those of them that are
        self._flush: tuple[int, asyncio.Task[None]] | None = None  # the last begun one, and up to which change
        self._unreadable: dict[str, tuple[str, bytes]] = {}  # id → name, record: left as they are
        for row in db.query("SELECT id, name, record FROM containers"):
            try:
                container = self._records.read(row["id"], row["record"])
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as e:
                self._unreadable[row["id"]] = (row["name"], bytes(row["record"] or b""))
                log.error(
                    "the row of container %s (%s) cannot be read and is left alone: %s", row["name"], row["id"], e
                )
                continue
            self._by_id[container.id] = container
            self._ids[container.name] = container.id

    @property
    def names(self) -> dict[str, str]:
        """Name → id of every container (read only)."""
        return self._ids

    @property
    def ids(self) -> dict[str, Container]:
        """Id → container (read only)."""
        return self._by_id

    def knows(self, container_id: str) -> bool:
        """Whether a row with this id exists, also an unreadable one."""
        return container_id in self._by_id or container_id in self._unreadable

    @property
    def unreadable(self) -> dict[str, str]:
        """Id → name of the containers with unreadable rows, of which nothing is touched."""
        return {container_id: name for container_id, (name, _) in self._unreadable.items()}

    @property
    def warnings(self) -> list[str]:
        """A warning for each unreadable row."""
        found = self.unreadable.items()
        return [
            f"WARNING: the row of container {name} ({ident[:12]}) cannot be read: {REPAIR}" for ident, name in found
        ]

    def unreadable_with(self, text: str) -> list[str]:
        """The unreadable rows that may refer to an object: its name occurs in the record."""
        return [ident for ident, (_, record) in self._unreadable.items() if text.encode() in record]

    def add(self, container: Container, *, also: Also = lambda _tx: None) -> None:
        """Add a record (AlreadyExists, in Docker's words: the name is taken); ``also`` runs in the same transaction.

        Durable after `flush`.
        """
        self.check_free(container.name)
        try:
            with self._db.transaction(durable=False, grows=True) as tx:
                record = self._records.write(container.id, container)
                tx.execute("INSERT INTO containers VALUES (?, ?, ?)", (container.id, container.name, record))
                also(tx)
        except sqlite3.IntegrityError as e:
            raise AlreadyExists(f"create container `{container.name}`: the name is already in use") from e
        self._by_id[container.id] = container
        self._ids[container.name] = container.id

    def begin_without_row(self, container_id: str) -> None:
        """Record that a container's directory is to go, unless it is added and that removal ended."""
        with self._db.transaction(durable=False, grows=True) as tx:
            self.removals.begin(tx, [container_id])

    def check_free(self, name: str) -> None:
        """Raise AlreadyExists when another container has ``name``."""
        unread = {other: ident for ident, other in self.unreadable.items()}
        if owner := self._ids.get(name) or unread.get(name):
            raise AlreadyExists(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def save(self, container: Container, *, durable: bool = True, also: Also = lambda _tx: None) -> None:
        """Write the record; a container that was removed meanwhile stays removed.

        Commits at once and does not wait for the disk: with ``durable`` that is begun, and no answer to a client goes
        out before its end (`flush_durable`); without, a power cut may take the change back until `flush`.  ``also``
        runs in the same transaction.
        """
        if container.id not in self._by_id:
            return
        owed = [self._by_id[ident] for ident in self._unsaved if ident in self._by_id]
        with self._db.transaction(durable=False) as tx:
            for changed in (*owed, container):
                record = self._records.write(changed.id, changed)
                tx.execute("UPDATE containers SET record = ? WHERE id = ?", (record, changed.id))
            also(tx)
        self._unsaved.clear()
        if durable:
            self._written += 1

    async def flush(self) -> None:
        """Wait until earlier writes are durable; concurrent callers share one fsync."""
        await self._commit()

    async def flush_durable(self) -> None:
        """Wait until every record saved as durable is; answers to clients wait for it."""
        if self._written > self._on_disk:
            await asyncio.shield(self.begin_flush())

    def begin_flush(self) -> asyncio.Task[None]:
        """Begin to make every record durable that was saved so; `flush_durable` waits for its end."""
        if self._flush is not None:
            mark, task = self._flush
            if mark == self._written and not (task.done() and self._on_disk < mark):  # else it failed
                return task
        task = asyncio.get_running_loop().create_task(self._flush_to(self._written))
        task.add_done_callback(_retrieve)
        self._flush = self._written, task
        return task

    async def _flush_to(self, mark: int) -> None:
        await self.flush()
        self._on_disk = max(self._on_disk, mark)

    def save_best_effort(self, container: Container, *, durable: bool = True) -> bool:
        """`save` a change that has already happened; if that fails (False), the next write includes it.

        Until then the monitor's or the kernel's word is what a restart of the daemon goes by.
        """
        try:
            self.save(container, durable=durable)
        except (KetchError, OSError) as e:
            self._unsaved.add(container.id)
            log.error("keep the state of container %s: %s", container.id[:12], e)
            return False
        return True

    def rename(self, container: Container, name: str) -> None:
        """Give ``container`` another name (AlreadyExists when taken)."""
        self.check_free(name)
        old = container.name
        record = self._records.write(container.id, msgspec.structs.replace(container, name=name))
        with self._db.transaction(durable=False) as tx:
            tx.execute("UPDATE containers SET name = ?, record = ? WHERE id = ?", (name, record, container.id))
        self._written += 1
        container.name = name
        del self._ids[old]
        self._ids[name] = container.id

    def remove(self, container: Container, *, also: Also = lambda _tx: None) -> None:
        """Remove ``container``; ``also`` runs in the same transaction.  Durable after `flush`.

        Its directory is to go; `removals` is told when it is gone.
        """
        with self._db.transaction(durable=False) as tx:
            tx.execute("DELETE FROM containers WHERE id = ?", (container.id,))
            self.removals.begin(tx, [container.id])
            also(tx)
        self._records.forget(container.id)
        self._by_id.pop(container.id, None)
        self._ids.pop(container.name, None)

    def has(self, ref: str) -> bool:
        """Whether `get` would succeed."""
        try:
            self.get(ref)
        except (NotFound, InvalidArgument):
            return False
        return True

    def get(self, ref: str) -> Container:
        """The container of a full id, name, link's name, or unambiguous id prefix (NotFound, InvalidArgument)."""
        ref = ref.removeprefix("/")
        if (container := self._by_id.get(ref)) is not None:
            return container
        if (full := self._ids.get(ref)) is not None:
            return self._by_id[full]
        parent, _, alias = ref.rpartition("/")  # the name of a link
        if parent in self._ids and (target := self._by_id[self._ids[parent]].links.get(alias, "")) in self._by_id:
            return self._by_id[target]
        matches = [cid for cid in self._by_id if cid.startswith(ref)] if ref else []
        if len(matches) == 1:
            return self._by_id[matches[0]]
        if matches:
            found = ", ".join(sorted(m[:12] for m in matches[:5]))
            raise InvalidArgument(
                f"Multiple IDs found with provided prefix: {ref} ({found})", hint="give more digits, or the name"
            )
        if ref in self._unreadable or ref in self.unreadable.values():
            raise DataLoss(f"look up container {ref}: its row in the state database cannot be read", hint=REPAIR)
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        raise NotFound(f"No such container: {ref}")

    def all(self) -> list[Container]:
        """Every container, newest first."""
        return sorted(self._by_id.values(), key=lambda c: c.created, reverse=True)

    def close(self) -> None:
        """End the thread that syncs writes to the disk."""
        self._commit.close()


def _retrieve(done: asyncio.Task[None]) -> None:
    """Retrieve a task's exception: nobody may ever ask for it, and that is no fault."""
    if not done.cancelled():
        done.exception()
