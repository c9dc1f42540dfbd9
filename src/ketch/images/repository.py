"""The records of images and their names, in the database, and the catalog of them in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.images import layoutindex, recover, schema
from ketch.images.catalog import Catalog, Indexes, Named
from ketch.oci import reference
from ketch.storage.database.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from sqlite3 import Connection

    from ketch.images.model import Image
    from ketch.oci import manifest as oci
    from ketch.storage.content.store import ContentStore
    from ketch.storage.database.db import Database
    from ketch.storage.layers.store import Layers


class ImageRepository:
    """``lock`` guards changes and is held briefly; ``catalog`` is replaced and never changed: readers need no lock.

    A change is written in a `transaction`, then shown by `show`, then synced without the lock, so that nobody who wants
    that waits for the disk.
    """

    def __init__(self, db: Database, content: ContentStore, layers: Layers) -> None:
        self._db = db
        self._content = content
        self._records = Records(schema.FORM)
        self.lock = threading.RLock()
        images, self.unreadable = recover.from_rows(
            db.query("SELECT id, record FROM images"), self._records, content, layers
        )
        rows = db.query("SELECT name, id, target FROM image_names")
        names = {r["name"]: Named(r["id"], r["target"] or images[r["id"]].manifest) for r in rows if r["id"] in images}
        self.catalog = Catalog({}, {}, Indexes({}, {}))
        self.show(images, names)

    # -- writing -------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction on the rows; durable after `sync`."""
        return self._db.transaction(durable=False)

    def write(self, tx: Connection, image: Image) -> None:
        """Write an image's row, without its names."""
        record = self._records.write(image.id, msgspec.structs.replace(image, repo_tags=[], repo_digests=[]))
        sql = "INSERT INTO images VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
        tx.execute(sql, (image.id, record))

    def write_name(self, tx: Connection, name: str, named: Named) -> None:
        """Write a name's target."""
        sql = "INSERT OR REPLACE INTO image_names (name, id, target) VALUES (?, ?, ?)"
        tx.execute(sql, (name, named.id, named.target))

    def delete(self, tx: Connection, names: Iterable[str], image_ids: Iterable[str]) -> None:
        """Delete the rows of names and images."""
        tx.executemany("DELETE FROM image_names WHERE name = ?", [(name,) for name in names])
        tx.executemany("DELETE FROM images WHERE id = ?", [(image_id,) for image_id in image_ids])

    def sync(self) -> None:
        """Make committed transactions durable; blocking."""
        self._db.sync()

    def show(self, images: dict[str, Image], names: dict[str, Named]) -> None:
        """Replace the catalog and ``index.json`` after a change."""
        for image_id in self.catalog.images.keys() - images.keys():
            self._records.forget(image_id)
        catalog = Catalog(images, names, self.indexes(images, names))
        for image in images.values():
            mine = catalog.names_of(image.id)
            image.repo_tags = [reference.parse(name).familiar for name in mine if "@" not in name]
            shown = {f"{reference.parse(n).familiar_repository}@{names[n].target}": None for n in mine}
            image.repo_digests = list(shown)
        self.catalog = catalog
        self._content.write_index(layoutindex.encode(catalog, self._content))

    # -- looking -------------------------------------------------------------------------------

    def indexes(self, images: Mapping[str, Image], names: Mapping[str, Named]) -> Indexes:
        """The indexes among the names' targets."""
        single = {m for image in images.values() for m in (image.manifest, *image.forms)}
        found: dict[str, oci.Index] = {}
        attested: dict[str, Mapping[str, frozenset[str]]] = {}
        for target in {named.target for named in names.values()} - single:
            index = self.catalog.indexes.get(target) or layoutindex.read(self._content, target)
            if index is not None:
                found[target] = index
                # Those of an index that was pulled may come later, with an archive.
                attested[target] = self.catalog.attested.get(target) or layoutindex.attested(self._content, index)
        return Indexes(found, attested)

    def name_of(self, ref: str) -> str | None:
        """The normalized name of ``ref``; None when it is an id."""
        try:
            return self.catalog.name_of(ref)
        except InvalidArgument:
            return None

    def family(self, image: Image, ref: str) -> list[Image]:
        """The image and its variants for other platforms, of the name (of an id: of all its names)."""
        name = self.name_of(ref)
        names = [name] if name else self.catalog.names_of(image.id)
        variants = {variant.id: variant for name in names for variant in self.catalog.variants(name)}
        return list({image.id: image, **variants}.values())
