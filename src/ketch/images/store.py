"""The store of images: look-up, addition, tags, removal, pins.

Records and names are in `repository`, the deletion of what nothing needs is in `gc`.  Everything is sync and may be
called from any thread; look-ups are answered from memory.  Long work (that of `ketch.images.archives`) takes a lease
and no lock, so that nothing waits for a slow client.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import msgspec

from ketch.errors import ImageNotFound, InvalidArgument
from ketch.failpoints import failpoint
from ketch.images import removal
from ketch.images.catalog import Catalog, Named
from ketch.images.gc import GarbageCollector
from ketch.images.model import Image
from ketch.images.repository import ImageRepository
from ketch.oci import reference
from ketch.oci.config import parse_time
from ketch.storage.content.store import ContentStore
from ketch.storage.layers.store import Layers
from ketch.storage.layers.unpack_pool import UnpackPool
from ketch.storage.lost import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager

    from ketch.images.gc import Later, Others
    from ketch.storage.content.leases import Lease
    from ketch.storage.database.db import Database

    InUse = Callable[[str], list[tuple[str, bool]]]

Images = list[Image]
RemovalRows = list[dict[str, str]]  # ``Untagged`` or ``Deleted`` → a name or an id, as Docker tells it
Strings = list[str]


class HistoryRow(TypedDict):
    """One row of an image's history, in Docker's names; a time in seconds since 1970, a size in bytes."""

    Id: str
    Created: int
    CreatedBy: str
    Tags: list[str] | None
    Size: int
    Comment: str


HistoryRows = list[HistoryRow]


class _Removal(NamedTuple):
    """A planned removal: names, the images without another name, and those without any other user."""

    names: Strings
    lost: Images
    forgotten: Images


class ImageStore:
    """All images of one daemon, with their content under ``data_root``."""

    def __init__(self, db: Database, data_root: str, later: Later | None = None, others: Others | None = None) -> None:
        """``later`` deletes unlinked files in the background; ``others`` names layers that something else needs.

        It is asked under the store's lock, from any thread, and must not ask the store.
        """
        self.content = ContentStore(os.path.join(data_root, "content"))
        self.layers = Layers(data_root)
        self.unpacker = UnpackPool()
        self._repository = ImageRepository(db, self.content, self.layers)
        self._garbage = GarbageCollector(
            db, self._repository, self.content, self.layers, later or (lambda work: work()), others or set
        )
        self._pins: dict[str, int] = {}
        self._garbage.sweep(Lost(data_root))

    def close(self) -> None:
        """End the unpacking processes, and close the content store."""
        self.unpacker.close()
        self.content.close()

    @property
    def catalog(self) -> Catalog:
        """The present images and names, as an immutable snapshot."""
        return self._repository.catalog

    # -- looking -------------------------------------------------------------------------------

    def resolve(self, ref: str, platform: str = "") -> Image:
        """The image of a name, id or id prefix (NotFound in Docker's words, InvalidArgument: ambiguous).

        With a ``platform`` (``linux/arm64``) it is for that one.
        """
        return self.catalog.resolve(ref, platform)

    def list(self, *, everything: bool = False) -> Images:
        """Every image, newest first; of a name for several platforms, this machine's.

        Nameless ones that others were committed on are there for ``everything`` alone.
        """
        catalog = self.catalog
        chosen = {named.id for named in catalog.names.values()}

        def shown(image: Image) -> bool:
            if image.hidden or image.id in chosen:
                return not image.hidden
            return not catalog.names_of(image.id) and (everything or not catalog.has_children(image.id))

        return sorted(filter(shown, catalog.images.values()), key=lambda i: i.created, reverse=True)

    def names_in(self, repository: str) -> Strings:
        """The local tags of a repository, as normalized names."""
        return self.catalog.in_repository(repository)

    def history(self, ref: str, platform: str = "") -> HistoryRows:
        """Docker's history rows, newest first; steps without files have size 0."""
        image = self.resolve(ref, platform)
        sizes = iter(image.layer_sizes)
        rows: HistoryRows = [
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
        position, known = 0, self.catalog.images
        of_rows: Image | None = image
        while of_rows is not None and position < len(rows):
            rows[position]["Id"], rows[position]["Tags"] = of_rows.id, of_rows.repo_tags or None
            parent = known.get(of_rows.parent)
            position = len(rows) - len(parent.config.history or ()) if parent is not None else 0
            of_rows = parent
        return rows

    def layer_sizes(self) -> dict[str, int]:
        """Bytes of each layer's files, by chain id."""
        sizes: dict[str, int] = {}
        for image in self.catalog.images.values():
            sizes.update(zip(image.chain_ids, image.layer_sizes, strict=True))
        return sizes

    def layer_names(self) -> set[str]:
        """The layers that images need: chain ids, and the layers that were made here to which these lead.

        Not those that only base images of builds have, which are there for the build cache.
        """
        chains = {chain for image in self.catalog.images.values() if not image.base for chain in image.chain_ids}
        return chains | {layer for chain, layer in self.layers.links().items() if chain in chains}

    def layers_size(self) -> int:
        """Bytes of all layers that images need, each counted once, in however many stacks it is."""
        links, needed = self.layers.links(), self.layer_names()
        sizes = {links.get(chain, chain): size for chain, size in self.layer_sizes().items() if chain in needed}
        return sum(sizes.values())

    # -- changing ------------------------------------------------------------------------------

    def add(self, added: Sequence[tuple[Image, Sequence[str]]], targets: Mapping[str, str] | None = None) -> Images:
        """Record images whose blobs and layers are in place, and point names (normalized) at them: all or none.

        The caller holds their content in a lease.  An image that is known already keeps its record, unless its content
        has come in another form.  ``targets`` has what names stand for (indexes); without, it is the image's manifest.
        """
        targets = targets or {}
        self._garbage.sync({part for image, _ in added for part in image.parts()})
        failpoint("image.synced")
        repository = self._repository
        with repository.lock:
            images, names = dict(self.catalog.images), dict(self.catalog.names)
            replaced: set[str] = set()
            for image, new_names in added:
                names.update({name: Named(image.id, targets.get(name, image.manifest)) for name in new_names})
                known = images.get(image.id, image)
                forms = self._forms(known, image, names)
                images[image.id] = kept = msgspec.structs.replace(
                    image,
                    hidden=False,
                    base=False,
                    last_tagged=image.last_tagged or known.last_tagged,
                    forms=forms,
                    parent=image.parent or known.parent,
                )
                replaced |= known.parts() - kept.parts()
            if targets:
                catalog = Catalog(images, names, repository.indexes(images, names))
                names.update({n: Named(catalog.choose(target, names[n].id), target) for n, target in targets.items()})
            replaced |= self._left(names)
            written = {image.id for image, _ in added} | {names[name].id for name in targets}
            images.update({i: msgspec.structs.replace(images[i], hidden=False, base=False) for i in written})
            with repository.transaction() as tx:
                for image_id in written:
                    repository.write(tx, images[image_id])
                for name in (name for _, new_names in added for name in new_names):
                    repository.write_name(tx, name, names[name])
                self._garbage.mark_for_removal(tx, replaced)
            failpoint("image.rows-written")
            repository.show(images, names)
            found = [self.catalog.images[image.id] for image, _ in added]
        repository.sync()
        if replaced:
            self._garbage.collect(replaced)
        return found

    def _left(self, names: Mapping[str, Named]) -> set[str]:
        """The indexes that names stand for now, and will not when these are the names; with their attestations."""
        catalog = self.catalog
        left = catalog.indexes.keys() - {named.target for named in names.values()}
        return left.union(*map(catalog.attestations, left))

    def _forms(self, known: Image, new: Image, names: Mapping[str, Named]) -> dict[str, Strings]:
        """The manifests of an image that is added again, as far as names or indexes refer to them."""
        forms = {**known.forms, known.manifest: known.blobs}
        meant = {named.target for named in names.values()}
        meant.update(d.digest for index in self.catalog.indexes.values() for d in index.manifests)
        return {manifest: blobs for manifest, blobs in forms.items() if manifest in meant and manifest != new.manifest}

    def keep_base(self, image: Image) -> None:
        """Record an image that builds use and nobody has named, for as long as something needs its layers.

        The caller holds its content in a lease; nothing happens when it is known.
        """
        self._garbage.sync(image.parts())
        with self._repository.lock:
            catalog = self.catalog
            if image.id in catalog.images:
                return
            kept = msgspec.structs.replace(image, hidden=True, base=True)
            with self._repository.transaction() as tx:
                self._repository.write(tx, kept)
            failpoint("image.base-written")
            self._repository.show({**catalog.images, image.id: kept}, dict(catalog.names))
        self._repository.sync()

    def remember(self, digest_name: str, image_id: str) -> None:
        """Add the name ``repository@digest``; nothing happens when the image was removed meanwhile."""
        with self._repository.lock:
            catalog = self.catalog
            if image_id not in catalog.images or digest_name in catalog.names:
                return
            named = Named(image_id, digest_name.rpartition("@")[2])
            with self._repository.transaction() as tx:
                self._repository.write_name(tx, digest_name, named)
            self._repository.show(dict(catalog.images), {**catalog.names, digest_name: named})
        self._repository.sync()

    def tag(self, ref: str, name: str) -> None:
        """Point ``name`` at an image, whatever it pointed at."""
        with self._repository.lock:
            catalog = self.catalog
            image, parsed = catalog.resolve(ref), reference.parse(name)
            if parsed.digest:
                raise InvalidArgument("cannot import digest reference")
            if parsed.familiar_repository == "sha256":  # `sha256:…` names an image by its id
                raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
            tagged = msgspec.structs.replace(image, last_tagged=time.time_ns(), hidden=False, base=False)
            source = self._repository.name_of(ref)
            named = catalog.names[source] if source else Named(image.id, image.manifest)
            names = {**catalog.names, str(parsed): named}
            left = self._left(names)
            with self._repository.transaction() as tx:
                self._repository.write(tx, tagged)
                self._repository.write_name(tx, str(parsed), named)
                self._garbage.mark_for_removal(tx, left)
            failpoint("image.tagged")
            self._repository.show({**catalog.images, image.id: tagged}, names)
        self._repository.sync()
        self._garbage.collect(left)

    def remove(
        self, ref: str, force: bool, in_use: InUse, dry_run: removal.DryRun | None = None, *, prune: bool = True
    ) -> RemovalRows:
        """Untag, and delete when nothing needs it; Conflict in Docker's words.

        With ``prune`` the images that it was committed on go, too, if they have no names and nothing needs them.

        ``in_use`` gives (container id, running) for an image id.  With ``force`` an image goes although stopped
        containers were made from it: it is hidden then, and its layers go at a later removal, when they do.  With
        ``dry_run`` nothing changes but that, and the answer is the same.
        """
        with self._repository.lock:
            plan = self._plan(ref, force, in_use, dry_run or removal.DryRun(), prune=prune)
            parts = {part for image in plan.forgotten for part in image.parts()}
            if dry_run is not None:
                dry_run.names.update(plan.names)
                dry_run.images.update(image.id for image in plan.forgotten)
                dry_run.lost.update(image.id for image in plan.lost)
                return _answer(plan, self._garbage.unneeded(parts, dry_run.images))
            parts |= {self.catalog.names[name].target for name in plan.names}
            parts |= self._left({name: at for name, at in self.catalog.names.items() if name not in plan.names})
            self._carry_out(plan, parts)
        self._repository.sync()
        return _answer(plan, self._garbage.collect(parts))

    def _plan(self, ref: str, force: bool, in_use: InUse, done: removal.DryRun, *, prune: bool) -> _Removal:
        """Plan a removal; what is ``done`` counts as removed."""
        catalog = self.catalog
        image = catalog.resolve(ref)
        family = self._repository.family(image, ref)
        names = [name for name in catalog.names_of(image.id) if name not in done.names]
        users = [user for member in family for user in in_use(member.id)]
        if any(member.id in self._pins for member in family):
            users = [*users, ("(being created)", True)]
        is_name = self._repository.name_of(ref) is not None
        needed = removal.Needed(users, catalog.has_children(image.id, done.lost))
        removed, gone = removal.plan(image, names, ref, needed, force=force, is_name=is_name)
        kept = catalog.names.keys() - {*removed, *done.names}
        lost = [member for member in family if not kept.intersection(catalog.names_of(member.id))] if gone else []
        if prune:
            lost += self._nameless_parents(lost, kept, in_use, done)
        hidden = [other for other in catalog.images.values() if other.hidden and not other.base]
        forgotten = [
            candidate for candidate in (*hidden, *lost) if candidate.id not in self._pins and not in_use(candidate.id)
        ]
        return _Removal(removed, lost, forgotten)

    def _nameless_parents(
        self, lost: Images, kept: AbstractSet[str], in_use: InUse, done: removal.DryRun
    ) -> Iterator[Image]:
        """The images that those were committed on, upwards, until one is needed."""
        catalog = self.catalog
        gone = {*done.lost, *(image.id for image in lost)}
        for image in list(lost):
            parent = catalog.images.get(image.parent)
            while parent is not None and parent.id not in gone and not parent.hidden:
                named = not kept.isdisjoint(catalog.names_of(parent.id))
                if named or parent.id in self._pins or catalog.has_children(parent.id, gone) or in_use(parent.id):
                    break
                gone.add(parent.id)
                yield parent
                parent = catalog.images.get(parent.parent)

    def _carry_out(self, plan: _Removal, parts: set[str]) -> None:
        """Apply a removal to rows and catalog; ``parts`` are blobs and layers that may be unneeded then."""
        catalog, repository = self.catalog, self._repository
        gone = {image.id for image in plan.forgotten}
        hidden = {
            changed.id: msgspec.structs.replace(changed, hidden=True) for changed in plan.lost if changed.id not in gone
        }
        with repository.transaction() as tx:
            repository.delete(tx, plan.names, gone)
            for changed in hidden.values():
                repository.write(tx, changed)
            self._garbage.mark_for_removal(tx, parts)
        failpoint("image.rows-deleted")
        kept = {image_id: image for image_id, image in catalog.images.items() if image_id not in gone}
        names = {name: named for name, named in catalog.names.items() if name not in plan.names}
        repository.show({**kept, **hidden}, names)

    # -- holding -------------------------------------------------------------------------------

    @contextmanager
    def pinned(self, image: Image) -> Iterator[None]:
        """Pin an image while a container is made from it: removals treat it as used by a running one.

        NotFound when it has gone meanwhile.
        """
        with self._repository.lock:
            if image.id not in self.catalog.images:
                raise ImageNotFound(f"No such image: {image.id}")
            self._pins[image.id] = self._pins.get(image.id, 0) + 1
        try:
            yield
        finally:
            with self._repository.lock:
                self._pins[image.id] -= 1
                if not self._pins[image.id]:
                    del self._pins[image.id]

    def lease(self) -> AbstractContextManager[Lease]:
        """A lease for new content; at its end the content that nothing needs is deleted."""
        return self._garbage.lease()

    def layer_held(self, layer: str) -> bool:
        """Whether a lease holds a layer."""
        return self._garbage.held(layer)

    def take_layer(self, layer: str, lease: Lease) -> str | None:
        """Take a layer that was made here, to go on writing it; None: somebody else than the lease needs it.

        Returns its directory, as of one that has been begun (`Layers.begin`).
        """
        return self._garbage.take(layer, lease)

    def sync(self, names: AbstractSet[str]) -> None:
        """Bring leased blobs and layers to the disk; blocking (DataLoss: a write error may have hit them)."""
        self._garbage.sync(names)


def _answer(plan: _Removal, chains: set[str]) -> RemovalRows:
    """Docker's rows for a removal; deleted layers (``chains``) topmost first."""
    rows = [{"Untagged": reference.parse(name).familiar} for name in plan.names]
    told: set[str] = set()
    for number, image in enumerate(plan.lost):  # a layer is told with the last of its images
        rows.append({"Deleted": image.id})
        needed = {chain for other in plan.lost[number + 1 :] for chain in other.chain_ids}
        gone = [chain for chain in reversed(image.chain_ids) if chain in chains and chain not in needed | told]
        told.update(gone)
        rows += [{"Deleted": chain} for chain in gone]
    return rows
