"""Named volumes: directories under the data root that outlive every container.

volumes/<name>/_data      what containers see
CREATE TABLE volumes (name, record)
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.storage.db import Schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.db import Database

SCHEMA = Schema("volumes", ("CREATE TABLE volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL)",))
Strings = list[str]
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


class Volume(msgspec.Struct, kw_only=True):
    """One volume; ``created`` in ns, ``anonymous`` when nobody chose its name."""

    name: str
    mountpoint: str
    created: int
    driver: str = "local"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    anonymous: bool = False


class VolumeStore:
    """All volumes; ``in_use(name)`` tells which containers (ids) refer to a volume."""

    def __init__(self, db: Database, data_root: str, in_use: Callable[[str], list[str]]) -> None:
        self._db = db
        self._root = os.path.join(data_root, "volumes")
        self._in_use = in_use
        decode = msgspec.json.Decoder(Volume).decode
        self._volumes = {row["name"]: decode(row["record"]) for row in db.query("SELECT * FROM volumes")}

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one that already has this name; an empty name makes an anonymous one."""
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if options:
            raise InvalidArgument(
                f"create volume `{name}`: the local driver takes no options yet ({', '.join(options)})",
                hint="leave out --opt",
            )
        anonymous = not name
        name = name or secrets.token_hex(32)
        if not _NAME.match(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        if (existing := self._volumes.get(name)) is not None:
            return existing
        path = os.path.join(self._root, name, "_data")
        os.makedirs(path, mode=0o755, exist_ok=True)
        volume = Volume(name=name, mountpoint=path, created=time.time_ns(), labels=labels or {}, anonymous=anonymous)
        with self._db.transaction() as tx:
            tx.execute("INSERT INTO volumes VALUES (?, ?)", (name, msgspec.json.encode(volume)))
        self._volumes[name] = volume
        return volume

    def get(self, name: str) -> Volume:
        """By exact name (NotFound)."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def list(self) -> list[Volume]:
        """All volumes by name."""
        return sorted(self._volumes.values(), key=lambda v: v.name)

    def used_by(self, name: str) -> Strings:
        """Ids of the containers that refer to the volume."""
        return self._in_use(name)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete the volume and its data; Conflict while a container refers to it.

        ``force`` makes a missing volume no error.  The row goes last, so that a crash in the middle leaves a
        volume that can be removed again and never data that nobody knows of.
        """
        if name not in self._volumes and force:
            return
        volume = self.get(name)
        if users := self._in_use(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        shutil.rmtree(os.path.dirname(volume.mountpoint), ignore_errors=False)
        with self._db.transaction() as tx:
            tx.execute("DELETE FROM volumes WHERE name = ?", (name,))
        del self._volumes[name]
