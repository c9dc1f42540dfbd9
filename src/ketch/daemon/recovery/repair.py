"""``ketchd --repair``: a new database from the readable rows of a damaged one.

    ketch.db, ketch.db-wal ──rows, page by page──► ketch.db.repaired ──► ketch.db
                 └──────────────────────────────────────────────────────► ketch.db.damaged-1, …-wal
    lost/ ──► layers, blobs and containers that starts have put aside
    content/, layers/ ──► images that have lost their rows           volumes/ ──► volumes that have
    containers/<id>/bundle ──► containers that have                  without a bundle ──► lost/<id>

Nothing is deleted.  A row counts when it is of a known shape and its record can be decoded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.build.cache import schema as cache_schema
from ketch.daemon import listen
from ketch.daemon.recovery import exchange, lost_objects
from ketch.engine.build import history
from ketch.engine.model import store
from ketch.engine.model.volume import Volume
from ketch.engine.monitors import process as monitor_process
from ketch.engine.paths import OF_A_BUILD
from ketch.engine.volumes import store as volume_store
from ketch.errors import DataLoss
from ketch.failpoints import failpoint
from ketch.images import recover
from ketch.images import schema as image_schema
from ketch.network.model import schema as network_schema
from ketch.storage import lost
from ketch.storage.content.store import ContentStore
from ketch.storage.database import removals, salvage
from ketch.storage.database.db import REPAIR, Database
from ketch.storage.database.records import NEWER
from ketch.storage.layers.store import Layers, is_built
from ketch.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.daemon.settings.config import Config
    from ketch.storage.database.records import Form
    from ketch.storage.database.salvage import Row

log = logging.getLogger("ketchd")
SCHEMAS = (
    image_schema.SCHEMA,
    store.SCHEMA,
    volume_store.SCHEMA,
    network_schema.SCHEMA,
    removals.SCHEMA,
    # The rest is not repaired: what was cached is built again, and what was built is history.
    cache_schema.SCHEMA,
    history.SCHEMA,
)
_VERSIONS = {schema.name: len(schema.migrations) for schema in SCHEMAS}
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_KEPT = ("containers", "layers", "volumes", "content/blobs/sha256")
# Parents before those that refer to them; the columns that make a row unique.
_TABLES = {
    "images": 1,
    "image_names": 1,
    "containers": 1,
    "volumes": 1,
    "network_host": 1,
    "networks": 1,
    "network_endpoints": 2,
    "removals": 1,
}


def check_not_lost(data_root: str) -> None:
    """Raise DataLoss for a missing database where there is data: an empty one would have it swept away."""
    path = os.path.join(data_root, "ketch.db")
    if os.path.exists(path) and os.path.getsize(path):
        return
    for name in _KEPT:
        directory = os.path.join(data_root, name)
        if os.path.isdir(directory) and os.listdir(directory):
            raise DataLoss(f"state database `{path}` is missing or empty, and `{directory}` is not", hint=REPAIR)


def _has_a_row(kind: str, name: str) -> bool:
    """Whether a directory is one of those that rows name."""
    of_a_build = name.startswith(OF_A_BUILD) if kind == "containers" else is_built(name)
    return name[0] != "." and not of_a_build


def check_not_emptied(data_root: str) -> Callable[[sqlite3.Connection], None]:
    """A check (DataLoss) of a database without a mark: no empty table where its directory has entries."""

    def check(connection: sqlite3.Connection) -> None:
        present = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        going = {row[0] for row in connection.execute("SELECT name FROM removals")} if "removals" in present else set()
        for table, name in (("containers", "containers"), ("images", "layers"), ("volumes", "volumes")):
            directory = os.path.join(data_root, name)
            there = (
                {f"{name}/{e}" for e in os.listdir(directory) if _has_a_row(name, e)}
                if os.path.isdir(directory)
                else set()
            )
            if not there - going:
                continue
            if table not in present or not connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]:
                raise DataLoss(
                    f"state database `{data_root}/ketch.db` has no {table}, and `{directory}` is not empty", hint=REPAIR
                )

    return check


def finish(data_root: str) -> None:
    """Finish a repair that was killed after its decision."""
    path = os.path.join(data_root, "ketch.db")
    exchange.finish(path, path + ".repaired")


def repair(config: Config) -> None:
    """Repair the database of these settings; the findings go to stderr, a line for each kind."""
    root = config.data_root
    path, new = os.path.join(root, "ketch.db"), os.path.join(root, "ketch.db.repaired")
    with listen.data_lock(root):
        exchange.finish(path, new)
        exchange.clear(new)
        rows = _salvaged(path)
        for kind, number in lost_objects.content(root).items():
            if number:
                _tell(f"{number} {kind} are back from `{os.path.join(root, 'lost')}`")
        failpoint("repair.content-back")
        _add_images(root, rows)
        _add_volumes(root, rows)
        _add_containers(root, rows)
        failpoint("repair.containers-back")
        _write(new, rows)
        for table in ("containers", "images", "volumes", "networks"):
            _tell(f"{len(rows[table])} {table}")
        for name in _set_aside(config, rows):
            _tell(f"container {name[:12]} has no row: its directory is now in `{os.path.join(root, 'lost')}`")
        if kept := exchange.exchange(path, new):
            _tell(f"the old database is kept as `{kept}`")


def prune_lost(config: Config) -> None:
    """``ketchd --prune-lost``: delete what starts and repairs have put aside."""
    with listen.data_lock(config.data_root):
        for directory in lost.directories(config.data_root):
            remove_tree(directory)
            sys.stderr.write(f"prune: removed `{directory}`\n")


def _tell(text: str) -> None:
    sys.stderr.write(f"repair: {text}\n")


Tables = dict[str, dict[tuple[object, ...], "Row"]]


def _salvaged(path: str) -> Tables:
    found: Tables = {table: {} for table in _TABLES}
    if not os.path.exists(path):
        return found
    for row in salvage.rows(path):
        _check_version(row)
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
    """The table of a row, by number and type of its columns and the form of its record."""
    match row:
        case (str(name),) if name.startswith(("containers/", "sha256:")):
            return "removals"
        case (str(key), bytes(record)) if key.startswith("sha256:") and _decodes(record, image_schema.FORM):
            return "images"
        case (str(key), bytes(record)) if _decodes(record, volume_store.FORM) and key:
            return "volumes"
        case (str(), str(value)) | (str(), str(value), str()) if value.startswith("sha256:"):
            return "image_names"
        case (str(key), str()) if key.startswith("unforwarded") or key in ("table", "host-firewall", "accept-ra"):
            return "network_host"
        case (str(key), str(other), bytes(record)) if _HEX.match(key):
            if _HEX.match(other) and _decodes(record, network_schema.ENDPOINTS):
                return "network_endpoints"
            return "containers" if _decodes(record, store.FORM) else None
        case (str(key), str(), bytes(record), str()) if _HEX.match(key) and _decodes(record, network_schema.NETWORKS):
            return "networks"
    return None


def _decodes(record: bytes, form: Form[Any]) -> bool:
    """Whether the data is a record of this form (DataLoss: of a newer version of it)."""
    try:
        form.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _check_version(row: Row) -> None:
    """Raise DataLoss for a version of the tables that is newer than this program."""
    match row:
        case (str(name), int(version)) if version > _VERSIONS.get(name, version):
            raise DataLoss(
                f"repair the state database: its `{name}` tables are version {version}, this program knows "
                f"{_VERSIONS[name]}",
                hint=NEWER,
            )


def _add_images(root: str, rows: Tables) -> None:
    """Add the complete images of the content store that have no row, with the names of ``index.json``."""
    with contextlib.closing(ContentStore(os.path.join(root, "content"))) as content:
        found = recover.images(content, Layers(root))
        names = recover.names(content, found)
    for image in found:
        if (image.id,) in rows["removals"]:
            continue
        rows["images"].setdefault((image.id,), (image.id, image_schema.FORM.encode(image)))
    for name, named in names.items():
        if (named.id,) not in rows["images"]:
            continue
        rows["image_names"].setdefault((name,), (name, *named))


def _add_volumes(root: str, rows: Tables) -> None:
    """Add the volumes of which only the directory is left; labels and options are lost."""
    directory = os.path.join(root, "volumes")
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        path = os.path.join(directory, name, "_data")
        if (name,) in rows["volumes"] or name.startswith(".") or not os.path.isdir(path):
            continue
        created = os.stat(path).st_mtime_ns
        volume = Volume(name=name, mountpoint=path, created=created, anonymous=bool(_HEX.match(name)))
        rows["volumes"][(name,)] = (name, volume_store.FORM.encode(volume))


def _add_containers(root: str, rows: Tables) -> None:
    """Bring containers' directories back from ``lost/``, and add rows, from their bundles, for those without."""
    for row in rows["containers"].values():
        if lost_objects.directory(root, str(row[0])):
            _tell(f"container {row[1]}: its directory is back")
    directory = os.path.join(root, "containers")
    images = {str(key[0]) for key in rows["images"]}
    names = {str(row[1]) for row in rows["containers"].values()}
    aside = lost.kept_paths(root, "containers")
    here = [os.path.join(directory, name) for name in (os.listdir(directory) if os.path.isdir(directory) else ())]
    for path in (*here, *aside):
        name = os.path.basename(path)
        if (name,) in rows["containers"] or (f"containers/{name}",) in rows["removals"]:
            continue
        found = lost_objects.container(path, root, images, names)
        if found is None or path in aside and not lost_objects.directory(root, name):
            continue
        rows["containers"][(name,)] = (name, found.name, store.FORM.encode(found))
        names.add(found.name)
        _tell(f"container {found.name} is made anew from its bundle: ports, networks, limits and labels are lost")


def _set_aside(config: Config, rows: Tables) -> list[str]:
    """Move the directories of unknown containers to ``lost/``."""
    directory, kept = os.path.join(config.data_root, "containers"), os.path.join(config.data_root, "lost")
    moved = []
    for name in filter(lost.is_ours, os.listdir(directory) if os.path.isdir(directory) else ()):
        if (name,) in rows["containers"] or (f"containers/{name}",) in rows["removals"]:
            continue
        if pid := monitor_process.find(os.path.join(config.exec_root, "run", name), name, 0):
            _tell(f"container {name[:12]} runs still and cannot be managed: end it with `kill -9 {pid}`")
        os.makedirs(kept, mode=0o700, exist_ok=True)
        if not os.path.lexists(os.path.join(kept, name)):
            os.rename(os.path.join(directory, name), os.path.join(kept, name))
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
