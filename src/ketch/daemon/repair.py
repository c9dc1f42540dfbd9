"""``ketchd --repair``: a database that can be used again, out of what can be read of one that cannot.

    ketch.db, ketch.db-wal ──rows, page by page──► ketch.db.repaired ──► ketch.db
                 └──────────────────────────────────────────────────────► ketch.db.damaged-1, …-wal
    content/, layers/ ──► images that have lost their rows           volumes/ ──► volumes that have
    containers/<id> without a row ──► lost/<id>

Nothing is deleted.  A row counts when it is of a known shape and its record can be decoded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import sys
from typing import TYPE_CHECKING

import msgspec

from ketch.daemon import listen
from ketch.engine import monitorprocess, store, volumes
from ketch.engine.model import Container
from ketch.engine.volumes import Volume
from ketch.errors import DataLoss
from ketch.images import recover
from ketch.images import schema as image_schema
from ketch.images.model import Image
from ketch.network import schema as network_schema
from ketch.network.record import Endpoint, NetworkRecord
from ketch.storage import salvage
from ketch.storage.content import ContentStore
from ketch.storage.db import REPAIR, Database
from ketch.storage.layers import Layers

if TYPE_CHECKING:
    from ketch.daemon.config import Config
    from ketch.storage.salvage import Row

log = logging.getLogger("ketchd")
SCHEMAS = (image_schema.SCHEMA, store.SCHEMA, volumes.SCHEMA, network_schema.SCHEMA)
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_KEPT = ("containers", "layers", "volumes", "content/blobs/sha256")
# Parents before those that refer to them; the columns that make a row unique.
_TABLES = {
    "images": 1, "image_names": 1, "containers": 1, "volumes": 1,
    "network_host": 1, "networks": 1, "network_endpoints": 2,
}  # fmt: skip


def check_not_lost(data_root: str) -> None:
    """Refuse to begin anew where there is something: an empty state would have all of it swept away (DataLoss)."""
    path = os.path.join(data_root, "ketch.db")
    if os.path.exists(path) and os.path.getsize(path):
        return
    for name in _KEPT:
        place = os.path.join(data_root, name)
        if os.path.isdir(place) and os.listdir(place):
            raise DataLoss(f"state database `{path}` is missing or empty, and `{place}` is not", hint=REPAIR)


def repair(config: Config) -> None:
    """Do it, for ``data-root`` of these settings; what was found is told on stderr, a line for each kind."""
    root = config.data_root
    path, new = os.path.join(root, "ketch.db"), os.path.join(root, "ketch.db.repaired")
    with listen.data_lock(root):
        for name in (new, new + "-wal", new + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        rows = _salvaged(path)
        _add_images(root, rows)
        _add_volumes(root, rows)
        _write(new, rows)
        for table in ("containers", "images", "volumes", "networks"):
            _tell(f"{len(rows[table])} {table}")
        for name in _set_aside(root, rows):
            _tell(f"container {name[:12]} has no row: its directory is now in `{os.path.join(root, 'lost')}`")
            if pid := monitorprocess.find(os.path.join(config.exec_root, "run", name), name, 0):
                _tell(f"container {name[:12]} runs still and cannot be managed: end it with `kill -9 {pid}`")
        if kept := _exchange(path, new):
            _tell(f"the old database is kept as `{kept}`")


def _tell(text: str) -> None:
    sys.stderr.write(f"repair: {text}\n")


Tables = dict[str, dict[tuple[object, ...], "Row"]]


def _salvaged(path: str) -> Tables:
    found: Tables = {table: {} for table in _TABLES}
    if not os.path.exists(path):
        return found
    for row in salvage.rows(path):
        if (table := _table_of(row)) is not None:
            if table == "image_names":
                row = (*row, "")[:3]  # written before names had targets
            found[table].setdefault(row[: _TABLES[table]], row)
    images = {key[0] for key in found["images"]}
    networks = {key[0] for key in found["networks"]}
    for table, column, known in (("image_names", 1, images), ("network_endpoints", 1, networks)):
        found[table] = {key: row for key, row in found[table].items() if row[column] in known}
    return found


def _table_of(row: Row) -> str | None:
    """Whose row it is: by number and type of its columns, and by what its record can be decoded as."""
    match row:
        case (str(key), bytes(record)) if key.startswith("sha256:") and _decodes(record, Image):
            return "images"
        case (str(key), bytes(record)) if _decodes(record, Volume) and key:
            return "volumes"
        case (str(), str(value)) | (str(), str(value), str()) if value.startswith("sha256:"):
            return "image_names"
        case (str(key), str()) if key.startswith("unforwarded") or key in ("table", "host-firewall"):
            return "network_host"
        case (str(key), str(other), bytes(record)) if _HEX.match(key):
            if _HEX.match(other) and _decodes(record, Endpoint):
                return "network_endpoints"
            return "containers" if _decodes(record, Container) else None
        case (str(key), str(), bytes(record), str()) if _HEX.match(key) and _decodes(record, NetworkRecord):
            return "networks"
    return None


def _decodes(record: bytes, kind: type[msgspec.Struct]) -> bool:
    try:
        msgspec.json.decode(record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _add_images(root: str, rows: Tables) -> None:
    """Images that the content store has whole and no row names, with the names of ``index.json``."""
    content, layers = ContentStore(os.path.join(root, "content")), Layers(root)
    found = recover.images(content, layers)
    for image in found:
        rows["images"].setdefault((image.id,), (image.id, msgspec.json.encode(image)))
    for name, named in recover.names(content, found).items():
        rows["image_names"].setdefault((name,), (name, *named))


def _add_volumes(root: str, rows: Tables) -> None:
    """Volumes of which only the directory is left; labels and options are lost."""
    place = os.path.join(root, "volumes")
    for name in os.listdir(place) if os.path.isdir(place) else ():
        path = os.path.join(place, name, "_data")
        if (name,) in rows["volumes"] or not os.path.isdir(path):
            continue
        created = os.stat(path).st_mtime_ns
        volume = Volume(name=name, mountpoint=path, created=created, anonymous=bool(_HEX.match(name)))
        rows["volumes"][(name,)] = (name, msgspec.json.encode(volume))


def _set_aside(root: str, rows: Tables) -> list[str]:
    """Put the directories of containers that are not known any more where no start sweeps them away."""
    place, moved = os.path.join(root, "containers"), []
    for name in os.listdir(place) if os.path.isdir(place) else ():
        if (name,) not in rows["containers"]:
            os.makedirs(os.path.join(root, "lost"), mode=0o700, exist_ok=True)
            os.rename(os.path.join(place, name), os.path.join(root, "lost", name))
            moved.append(name)
    return moved


def _write(path: str, rows: Tables) -> None:
    db = Database(path, SCHEMAS)
    with db.transaction() as tx:
        for table in _TABLES:
            for row in rows[table].values():
                try:
                    tx.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
                except sqlite3.IntegrityError as e:  # two of one name: the first stays
                    _tell(f"left out a row of {table}: {e}")
    verdict = db.query("PRAGMA integrity_check")[0][0]
    if verdict != "ok":
        raise DataLoss(f"check the repaired database `{path}`: {verdict}")
    db.close()


def _exchange(path: str, new: str) -> str:
    """Put the new database in the old one's place; returns where the old one is (empty: there was none)."""
    kept = next(name for n in range(1, 1000) if not os.path.exists(name := f"{path}.damaged-{n}"))
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            os.link(path + suffix, kept + suffix)
    for suffix in ("-wal", "-shm"):  # the old file's: the new one must not meet it
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.rename(new, path)
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return kept if os.path.exists(kept) else ""
