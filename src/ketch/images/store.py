"""The images that are here: names → images → layers and blobs.

Everything is sync and may be called from any thread; look-ups are answered from memory.  Long work (that of
`ketch.images.archives`) takes a lease and no lock, so that nothing waits for a slow client.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from ketch import faults
from ketch.errors import InvalidArgument, NotFound
from ketch.images import layoutindex, recover, removal, schema
from ketch.images.catalog import Catalog, Named
from ketch.images.model import Image
from ketch.oci import reference
from ketch.oci.config import parse_time
from ketch.storage.content.leases import Leases
from ketch.storage.content.store import ContentStore
from ketch.storage.database.records import Records
from ketch.storage.database.removals import Removals
from ketch.storage.layers.store import Layers
from ketch.storage.layers.unpack_pool import UnpackPool
from ketch.storage.lost import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from sqlite3 import Connection

    from ketch.oci import manifest as oci
    from ketch.storage.content.leases import Lease
    from ketch.storage.database.db import Database

    InUse = Callable[[str], list[tuple[str, bool]]]

Images = list[Image]
Rows = list[dict[str, Any]]
Strings = list[str]


class ImageStore:
    """All images of one daemon, with their content under ``data_root``.

    ``lock`` guards changes and is held briefly; ``catalog`` is replaced and never changed: readers need no lock.
    """

    def __init__(
        self, db: Database, data_root: str, later: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        """``later`` carries out what nobody has to wait for: deleting files that have no name any more."""
        self._db = db
        self._records = Records(schema.FORM)
        self._later = later or (lambda work: work())
        self.content = ContentStore(os.path.join(data_root, "content"))
        self.layers = Layers(data_root)
        self.unpacker = UnpackPool()
        self.lock = threading.RLock()
        self._leases = Leases(self.lock, os.path.join(self.content.root, "leases"))
        self._removals = Removals(db, "sha256:")
        self._pins: dict[str, int] = {}
        images, self._unreadable = recover.from_rows(
            db.query("SELECT id, record FROM images"), self._records, self.content, self.layers
        )
        rows = db.query("SELECT name, id, target FROM image_names")
        names = {r["name"]: Named(r["id"], r["target"] or images[r["id"]].manifest) for r in rows if r["id"] in images}
        self.catalog = Catalog({}, {}, {})
        self._set(images, names)
        for directory in self.layers.unfinished():
            self._later(functools.partial(self.layers.abort, directory))
        self._sweep(Lost(data_root))

    # -- looking -------------------------------------------------------------------------------

    def resolve(self, ref: str, platform: str = "") -> Image:
        """By name, id or id prefix; NotFound in Docker's words, InvalidArgument when ambiguous.

        With a ``platform`` (``linux/arm64``) it is for that one.
        """
        return self.catalog.resolve(ref, platform)

    def list(self) -> Images:
        """Every image, newest first; of a name for several platforms the one that it means here."""
        catalog = self.catalog
        chosen = {named.id for named in catalog.names.values()}
        shown = (i for i in catalog.images.values() if not i.hidden and (i.id in chosen or not catalog.names_of(i.id)))
        return sorted(shown, key=lambda i: i.created, reverse=True)

    def names_in(self, repository: str) -> Strings:
        """The tags (normalized names) that a repository has here."""
        return self.catalog.in_repository(repository)

    def history(self, ref: str, platform: str = "") -> Rows:
        """Docker's history rows, newest first; steps without files have size 0."""
        image = self.resolve(ref, platform)
        sizes = iter(image.layer_sizes)
        rows: Rows = [
            {
                "Id": "<missing>",
                "Created": parse_time(step.created) // 1_000_000_000,
                "CreatedBy": step.created_by or "",
                "Tags": None,
                "Size": 0 if step.empty_layer else next(sizes, 0),
                "Comment": step.comment or "",
            }
            for step in image.config.history or ()
        ]
        rows.reverse()
        if rows:
            rows[0].update(Id=image.id, Tags=image.repo_tags or None)
        return rows

    def layer_sizes(self) -> dict[str, int]:
        """Bytes of each layer's files, by chain id."""
        sizes: dict[str, int] = {}
        for image in self.catalog.images.values():
            sizes.update(zip(image.chain_ids, image.layer_sizes, strict=True))
        return sizes

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(self.layer_sizes().values())

    # -- changing ------------------------------------------------------------------------------

    def add(self, added: Sequence[tuple[Image, Sequence[str]]], targets: Mapping[str, str] | None = None) -> Images:
        """Record images whose blobs and layers are in place, and point names (normalized) at them: all or none.

        The caller holds their content in a lease.  An image that is known already keeps its record, unless its content
        has come in another form.  ``targets`` has what names stand for (indexes); without, it is the image's manifest.
        """
        targets = targets or {}
        self.content.sync()
        faults.point("image.synced")
        with self.lock:
            images, names = dict(self.catalog.images), dict(self.catalog.names)
            replaced: set[str] = set()
            for image, new_names in added:
                names.update({name: Named(image.id, targets.get(name, image.manifest)) for name in new_names})
                known = images.get(image.id, image)
                forms = self._forms(known, image, names)
                images[image.id] = kept = msgspec.structs.replace(
                    image, hidden=False, last_tagged=time.time_ns(), forms=forms
                )
                replaced |= known.parts() - kept.parts()
            if targets:
                catalog = Catalog(images, names, self._indexes(images, names))
                names.update({n: Named(catalog.choose(target, names[n].id), target) for n, target in targets.items()})
            with self._db.transaction(durable=False) as tx:
                for image, _ in added:
                    self._write(tx, images[image.id])
                for name in (name for _, new_names in added for name in new_names):
                    _write_name(tx, name, names[name])
                self._mark_for_removal(tx, replaced)
            faults.point("image.rows-written")
            self._set(images, names)
            found = [self.catalog.images[image.id] for image, _ in added]
        self._db.sync()  # whoever wants the lock in the event loop does not wait for the disk
        if replaced:
            self._collect(replaced)
        return found

    def _forms(self, known: Image, new: Image, names: Mapping[str, Named]) -> dict[str, Strings]:
        """The other forms of an image that comes once more, as far as names or indexes mean them."""
        forms = {**known.forms, known.manifest: known.blobs}
        meant = {named.target for named in names.values()}
        meant.update(d.digest for index in self.catalog.indexes.values() for d in index.manifests)
        return {manifest: blobs for manifest, blobs in forms.items() if manifest in meant and manifest != new.manifest}

    def remember(self, digest_name: str, image_id: str) -> None:
        """Note what a registry calls an image (``repository@digest``); nothing when the image has gone meanwhile."""
        with self.lock:
            catalog = self.catalog
            if image_id not in catalog.images or digest_name in catalog.names:
                return
            named = Named(image_id, digest_name.rpartition("@")[2])
            with self._db.transaction(durable=False) as tx:
                _write_name(tx, digest_name, named)
            self._set(dict(catalog.images), {**catalog.names, digest_name: named})
        self._db.sync()

    def tag(self, ref: str, name: str) -> None:
        """Point ``name`` at an image, taking it from the one that had it."""
        with self.lock:
            catalog = self.catalog
            image, parsed = catalog.resolve(ref), reference.parse(name)
            if parsed.digest:
                raise InvalidArgument("refusing to create a tag with a digest reference")
            tagged = msgspec.structs.replace(image, last_tagged=time.time_ns(), hidden=False)
            source = self._name_of(ref)
            named = catalog.names[source] if source else Named(image.id, image.manifest)
            with self._db.transaction(durable=False) as tx:
                self._write(tx, tagged)
                _write_name(tx, str(parsed), named)
            faults.point("image.tagged")
            self._set({**catalog.images, image.id: tagged}, {**catalog.names, str(parsed): named})
        self._db.sync()

    def remove(self, ref: str, force: bool, in_use: InUse, dry_run: removal.DryRun | None = None) -> Rows:
        """Untag, and delete when nothing needs it; Conflict in Docker's words.

        ``in_use`` gives (container id, running) for an image id.  With ``force`` an image goes although stopped
        containers were made from it: it is hidden then, and its layers go at a later removal, when they do.  With a
        ``dry_run`` nothing changes but that, and the answer is the same.
        """
        with self.lock:
            catalog = self.catalog
            image = catalog.resolve(ref)
            family = self._family(image, ref)
            taken = dry_run.names if dry_run is not None else set()
            names = [name for name in catalog.names_of(image.id) if name not in taken]
            users = [user for one in family for user in in_use(one.id)]
            if any(one.id in self._pins for one in family):
                users = [*users, ("(being created)", True)]
            removed, gone = removal.plan(image, names, ref, users, force=force, is_name=self._name_of(ref) is not None)
            lost = self._lost(family, {*removed, *taken}) if gone else []
            rows = [{"Untagged": reference.parse(name).familiar} for name in removed]
            rows += [{"Deleted": one.id} for one in lost]
            forgotten = [i for i in catalog.images.values() if i.hidden and i.id not in self._pins and not in_use(i.id)]
            forgotten += [one for one in lost if not in_use(one.id) and one.id not in self._pins]
            if dry_run is not None:
                dry_run.names.update(removed)
                dry_run.images.update(i.id for i in forgotten)
                chains = self._unneeded({part for i in forgotten for part in i.parts()}, dry_run.images)
                return rows + _deleted(lost, chains)
            gone_ids = {i.id for i in forgotten}
            hidden = {one.id: msgspec.structs.replace(one, hidden=True) for one in lost if one.id not in gone_ids}
            targets = {catalog.names[name].target for name in removed}
            parts = {part for i in forgotten for part in i.parts()} | targets
            with self._db.transaction(durable=False) as tx:
                tx.executemany("DELETE FROM image_names WHERE name = ?", [(name,) for name in removed])
                tx.executemany("DELETE FROM images WHERE id = ?", [(image_id,) for image_id in gone_ids])
                for one in hidden.values():
                    self._write(tx, one)
                self._mark_for_removal(tx, parts)
            for image_id in gone_ids:
                self._records.forget(image_id)
            faults.point("image.rows-deleted")
            kept = {k: v for k, v in catalog.images.items() if k not in gone_ids}
            self._set({**kept, **hidden}, {n: named for n, named in catalog.names.items() if n not in removed})
        self._db.sync()
        chains = self._collect(parts)
        return rows + _deleted(lost, chains)

    def _write(self, tx: Connection, image: Image) -> None:
        record = self._records.write(image.id, msgspec.structs.replace(image, repo_tags=[], repo_digests=[]))
        sql = "INSERT INTO images VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
        tx.execute(sql, (image.id, record))

    def _family(self, image: Image, ref: str) -> Images:
        """The image and, for a name (for an id: for all of its names), the variants for other platforms."""
        name = self._name_of(ref)
        names = [name] if name else self.catalog.names_of(image.id)
        variants = {one.id: one for name in names for one in self.catalog.variants(name)}
        return list({image.id: image, **variants}.values())

    def _lost(self, family: Images, removed: Collection[str]) -> Images:
        """Those that no other name leads to."""
        return [one for one in family if not set(self.catalog.names_of(one.id)) - set(removed)]

    def _name_of(self, ref: str) -> str | None:
        try:
            return self.catalog.name_of(ref)
        except InvalidArgument:
            return None

    @contextmanager
    def pinned(self, image: Image) -> Iterator[None]:
        """Removal takes the image as in use by a running container: for a container that is being made from it.

        NotFound when it has gone meanwhile.
        """
        with self.lock:
            if image.id not in self.catalog.images:
                raise NotFound(f"No such image: {image.id}")
            self._pins[image.id] = self._pins.get(image.id, 0) + 1
        try:
            yield
        finally:
            with self.lock:
                self._pins[image.id] -= 1
                if not self._pins[image.id]:
                    del self._pins[image.id]

    def lease(self) -> AbstractContextManager[Lease]:
        """For work that brings content: what it held and no image needs at its end is deleted."""
        return self._leases.take(self._collect)

    def _collect(self, candidates: set[str]) -> set[str]:
        """Delete those blobs and layers that no image and no lease needs; returns the layers' chain ids."""
        with self.lock:
            if self._unreadable:
                return set()  # nobody knows what they need
            unneeded = self._unneeded(candidates)
            directories = {name: self.layers.detach(name) for name in unneeded}
            for name in unneeded:
                self.content.remove(name)
            faults.point("image.content-unnamed")
            self._removals.end(name.removeprefix("sha256:") for name in candidates)
        for directory in filter(None, directories.values()):
            self._later(functools.partial(self.layers.abort, directory))
        return {name for name, directory in directories.items() if directory}

    def _mark_for_removal(self, tx: Connection, names: set[str]) -> None:
        """In the transaction after which nothing names these any more: they are to go."""
        self._removals.begin(tx, (name.removeprefix("sha256:") for name in names))

    def _sweep(self, lost: Lost) -> None:
        """What a crash left: parts of work that died, and of images that were being removed, go; other things stay."""
        certain = self._leases.abandoned() | {f"sha256:{name}" for name in self._removals.pending()}
        self._collect(certain & {*self.content.all(), *self.layers.all()})
        if self._unreadable:
            return
        self._removals.end(self._removals.pending())
        self._leases.forget_abandoned()
        for digest in self._unneeded(set(self.content.all())):
            lost.put("blobs", self.content.path(digest))
        for chain in self._unneeded(set(self.layers.all())):
            lost.put("layers", os.path.dirname(self.layers.diff(chain)))

    def _unneeded(self, candidates: set[str], without: Collection[str] = ()) -> set[str]:
        """Those that no lease holds and no name or image needs, except images ``without``."""
        catalog = self.catalog
        kept = (image.parts() for image in catalog.images.values() if image.id not in without)
        targets = {named.target for named in catalog.names.values()}
        return candidates - self._leases.held().union(targets, *kept)

    def _set(self, images: dict[str, Image], names: dict[str, Named]) -> None:
        """The tables as they are from now on: names in images, the look-ups, ``index.json``."""
        catalog = Catalog(images, names, self._indexes(images, names))
        for image in images.values():
            mine = catalog.names_of(image.id)
            image.repo_tags = [reference.parse(name).familiar for name in mine if "@" not in name]
            shown = {f"{reference.parse(n).familiar_repository}@{names[n].target}": None for n in mine}
            image.repo_digests = list(shown)
        self.catalog = catalog
        self.content.write_index(layoutindex.encode(catalog, self.content))

    def _indexes(self, images: Mapping[str, Image], names: Mapping[str, Named]) -> dict[str, oci.Index]:
        """The indexes among the names' targets."""
        single = {m for image in images.values() for m in (image.manifest, *image.forms)}
        found = {}
        for target in {named.target for named in names.values()} - single:
            index = self.catalog.indexes.get(target) or layoutindex.read(self.content, target)
            if index is not None:
                found[target] = index
        return found


def _write_name(tx: Connection, name: str, named: Named) -> None:
    tx.execute("INSERT OR REPLACE INTO image_names (name, id, target) VALUES (?, ?, ?)", (name, named.id, named.target))


def _deleted(images: Images, chains: set[str]) -> Rows:
    """The rows for the layers that went, topmost first."""
    ordered = {chain: None for image in images for chain in reversed(image.chain_ids) if chain in chains}
    return [{"Deleted": chain} for chain in ordered]
