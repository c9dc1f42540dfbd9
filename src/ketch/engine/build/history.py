"""History of builds: the last ones, with what became of them.

builds (ref, created, record)      record = BuildRecord as JSON
build_logs (ref, log)              log = what it wrote, as `status_log` packs it
build_blobs (ref, digest, data)    blobs that are kept with it, by sha256
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.engine.model.building.records import BuildRecord, RecordedBlob
from ketch.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from ketch.oci import digest as digests
from ketch.storage.database.db import Schema
from ketch.storage.database.records import Form
from ketch.threads import to_the_end

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping

    from ketch.engine.model.building.records import HistoryLimits
    from ketch.storage.database.db import Database

_MOST = 1000  # whatever their age
CANCELED = "context canceled"  # the error of a build that its client gave up
FORM = Form(BuildRecord)
SCHEMA = Schema(
    "builds",
    (
        "CREATE TABLE builds (ref TEXT PRIMARY KEY, created INTEGER NOT NULL, record BLOB NOT NULL)",
        "CREATE TABLE build_logs (ref TEXT PRIMARY KEY, log BLOB NOT NULL)",
        "CREATE TABLE build_blobs (digest TEXT, ref TEXT, data BLOB NOT NULL, PRIMARY KEY (digest, ref))",
    ),
    {"builds": FORM.version},
)
Records = list[BuildRecord]


class BuildHistory:
    """The last builds of one daemon, from any thread.

    What is past its limits is forgotten, unless it is pinned or runs.
    """

    def __init__(self, db: Database, limits: HistoryLimits) -> None:
        self._db, self._limits = db, limits
        self.count, self.failures = 0, {"canceled": 0, "error": 0}  # of builds since the start, and those by status
        self._listeners: list[Callable[[str, BuildRecord], None]] = []  # replaced, never changed

    def begin(self, record: BuildRecord) -> None:
        """Note a build that begins; it gets its time, and a name (``ref``) if it has none (AlreadyExists)."""
        if record.ref and self._db.query("SELECT 1 FROM builds WHERE ref = ?", (record.ref,)):
            raise AlreadyExists(f"a build has the ref {record.ref} already")
        record.ref, record.created = record.ref or secrets.token_hex(12), time.time_ns()
        self.write(record)

    async def begun(self, record: BuildRecord) -> None:
        """`begin` in a thread; a build that is given up meanwhile has ended, and does not seem to run for ever."""
        self.count += 1
        beginning = asyncio.ensure_future(asyncio.to_thread(self.begin, record))
        try:
            await to_the_end(beginning)
        except asyncio.CancelledError:
            if beginning.exception() is None:
                record.status, record.error, record.completed = "canceled", CANCELED, time.time_ns()
                await self.ended(record, bytes)
            raise

    async def ended(self, record: BuildRecord, packed: Callable[[], bytes]) -> None:
        """Note how a build has ended; ``packed`` gives what it wrote, in a thread."""
        if record.status in self.failures:
            self.failures[record.status] += 1
        await asyncio.shield(asyncio.to_thread(lambda: self.write(record, packed())))

    def write(self, record: BuildRecord, log: bytes = b"") -> None:
        """Note how far a build is, and what it wrote, as it was packed."""
        with self._db.transaction(durable=False) as tx:
            tx.execute(
                "INSERT OR REPLACE INTO builds (ref, created, record) VALUES (?, ?, ?)",
                (record.ref, record.created, FORM.encode(record)),
            )
            self._trim(tx)
            if log:
                tx.execute("INSERT OR REPLACE INTO build_logs (ref, log) VALUES (?, ?)", (record.ref, log))
                tx.execute("DELETE FROM build_logs WHERE ref NOT IN (SELECT ref FROM builds)")
        self._tell("changed", record)

    def _trim(self, tx: sqlite3.Connection) -> None:
        now = time.time_ns()
        for number, before in ((self._limits.max_entries, now - self._limits.max_age), (_MOST, now)):
            old = tx.execute(
                "SELECT record FROM (SELECT record, created FROM builds ORDER BY created DESC LIMIT -1 OFFSET ?)"
                " WHERE created < ?",
                (number, before),
            ).fetchall()
            for one in (FORM.decode(found) for (found,) in old):
                if not one.pinned and one.status != "running":
                    _forget(tx, one.ref)

    def all(self) -> Records:
        """The builds, newest first."""
        rows = self._db.query("SELECT record FROM builds ORDER BY created DESC")
        return [FORM.decode(record) for (record,) in rows]

    def get(self, ref: str) -> BuildRecord:
        """A build by its ref or the beginning of it (NotFound, InvalidArgument: several begin so)."""
        found = [record for record in self.all() if ref and record.ref.startswith(ref)]
        if not found:
            raise NotFound(f"no build has the ref {ref}", hint="`ketch build history` lists them")
        exact = [record for record in found if record.ref == ref]
        if len(found) > 1 and not exact:
            raise InvalidArgument(f"build ref prefix {ref} is ambiguous", hint="give more of it")
        return (exact or found)[0]

    def log(self, ref: str) -> bytes:
        """A build's log, packed (NotFound: of a build that runs, or was cut off, none is kept)."""
        record = self.get(ref)
        rows = self._db.query("SELECT log FROM build_logs WHERE ref = ?", (record.ref,))
        for (found,) in rows:
            return bytes(found)
        raise NotFound(f"of build {record.ref} no log is kept", hint="it runs, or was cut off")

    def keep(
        self, ref: str, media_type: str, data: bytes, annotations: Mapping[str, str] | None = None
    ) -> RecordedBlob:
        """Keep a blob with a build, whose record is to name it."""
        digest = digests.of(data)
        with self._db.transaction(durable=False) as tx:
            tx.execute("INSERT OR REPLACE INTO build_blobs (digest, ref, data) VALUES (?, ?, ?)", (digest, ref, data))
        return RecordedBlob(media_type=media_type, digest=digest, size=len(data), annotations=dict(annotations or {}))

    def blob(self, digest: str) -> bytes | None:
        """A blob that is kept with whichever build."""
        rows = self._db.query("SELECT data FROM build_blobs WHERE digest = ? LIMIT 1", (digest,))
        return next((bytes(data) for (data,) in rows), None)

    def remove(self, ref: str) -> None:
        """Forget a build (NotFound, Conflict: it runs)."""
        record = self.get(ref)
        if record.status == "running":
            raise Conflict(f"build {record.ref} is running", hint="cancel it first")
        with self._db.transaction() as tx:
            _forget(tx, record.ref)
        self._tell("deleted", record)

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[str, BuildRecord], None]) -> Iterator[None]:
        """Have ``listener`` called with each record that is ``changed`` or ``deleted``, in whichever thread."""
        self._listeners = [*self._listeners, listener]
        try:
            yield
        finally:
            self._listeners = [one for one in self._listeners if one is not listener]

    def _tell(self, kind: str, record: BuildRecord) -> None:
        for listener in self._listeners:
            listener(kind, msgspec.structs.replace(record))

    def end_all(self) -> int:
        """Note that no build runs: at the daemon's start those that did were cut off; returns how many."""
        cut_off = [record for record in self.all() if record.status == "running"]
        for record in cut_off:
            record.status, record.error = "error", "the daemon ended while it was running"
            self.write(record)
        return len(cut_off)


def _forget(tx: sqlite3.Connection, ref: str) -> None:
    for table in ("builds", "build_logs", "build_blobs"):
        tx.execute(f"DELETE FROM {table} WHERE ref = ?", (ref,))
