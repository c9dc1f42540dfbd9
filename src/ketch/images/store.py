"""The images that are here: names → images → layers and blobs.

Everything is sync and may be called from any thread; look-ups are answered from memory.  Long work (load, import)
takes a lease and no lock, so that nothing waits for a slow client.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch import faults
from ketch.errors import InvalidArgument, NotFound
from ketch.images import recover, removal
from ketch.images.model import Image
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.oci.config import parse_time
from ketch.storage.content import ContentStore
from ketch.storage.leases import Leases
from ketch.storage.snapshots import Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager
    from sqlite3 import Connection

    from ketch.storage.db import Database
    from ketch.storage.leases import Lease

    InUse = Callable[[str], list[tuple[str, bool]]]
    Progress = Callable[[dict[str, Any]], None]

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")
_encode = msgspec.json.Encoder().encode
Images = list[Image]
Rows = list[dict[str, Any]]
Strings = list[str]


class ImageStore:
    """All images of one daemon, with their content under ``data_root``.

    ``lock`` guards changes and is held briefly; the dicts are replaced and never changed, so that readers need no lock.
    """

    def __init__(self, db: Database, data_root: str) -> None:
        self._db = db
        self.content = ContentStore(os.path.join(data_root, "content"))
        self.layers = Layers(data_root)
        self.lock = threading.RLock()
        self._leases = Leases(self.lock)
        self._pins: dict[str, int] = {}
        self._images, self._unreadable = recover.from_rows(
            db.query("SELECT id, record FROM images"), self.content, self.layers
        )
        named = db.query("SELECT name, id FROM image_names")
        self._names: dict[str, str] = {row["name"]: row["id"] for row in named if row["id"] in self._images}
        self._found: dict[str, Image] = {}
        self._refresh()
        self._collect({*self.content.all(), *self.layers.all()})  # what a crash left

    # -- looking -------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By name, id or id prefix; NotFound in Docker's words, InvalidArgument when ambiguous."""
        cache = self._found  # an answer found before a change must not get into the cache made after it
        found = cache.get(ref)
        if found is None:
            found = cache[ref] = self._look_up(ref)
        return found

    def _look_up(self, ref: str) -> Image:
        images, names = self._images, self._names
        match = _ID.match(ref)
        if match and len(match[1]) == 64:
            exact = images.get(f"sha256:{match[1]}")
            if exact is not None:
                return exact
        try:
            parsed = reference.parse(ref)
        except InvalidArgument:
            if not match:
                raise
        else:
            found = self._by_digest(parsed) if parsed.digest else images.get(names.get(str(parsed), ""))
            if found is not None:
                return found
        if match:
            matches = [i for key, i in images.items() if key.startswith(f"sha256:{match[1]}") and not i.hidden]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidArgument(f"image id prefix {ref} is ambiguous", hint="give more digits")
        raise NotFound(f"No such image: {ref if match or ':' in ref or '@' in ref else ref + ':latest'}")

    def _by_digest(self, parsed: reference.Reference) -> Image | None:
        """An image of that repository with that manifest (or that id: ``docker`` prints both as digests)."""
        for image in self._images.values():
            if parsed.digest in (image.manifest, image.id) and not image.hidden:
                repositories = {reference.parse(tag).repository for tag in image.repo_tags}
                if parsed.repository in repositories:
                    return image
        return None

    def list(self) -> Images:
        """Every image, newest first."""
        return sorted((i for i in self._images.values() if not i.hidden), key=lambda i: i.created, reverse=True)

    def names_in(self, repository: str) -> Strings:
        """The names (normalized) that a repository has here."""
        return [name for name in self._names if reference.parse(name).repository == repository]

    def history(self, ref: str) -> Rows:
        """Docker's history rows, newest first; steps without files have size 0."""
        image = self.resolve(ref)
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
        for image in self._images.values():
            sizes.update(zip(image.chain_ids, image.layer_sizes, strict=True))
        return sizes

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(self.layer_sizes().values())

    # -- changing ------------------------------------------------------------------------------

    def add(self, added: Sequence[tuple[Image, Sequence[str]]]) -> Images:
        """Record images whose blobs and layers are in place, and point names (normalized) at them: all or none.

        The caller holds their content in a lease.  An image that is known already keeps its record.
        """
        self.content.sync()
        faults.point("image.synced")
        with self.lock:
            images, names = dict(self._images), dict(self._names)
            with self._db.transaction() as tx:
                for image, new_names in added:
                    kept = msgspec.structs.replace(
                        images.get(image.id, image), hidden=False, last_tagged=time.time_ns()
                    )
                    images[image.id] = kept
                    _write(tx, kept)
                    for name in new_names:
                        tx.execute("INSERT OR REPLACE INTO image_names VALUES (?, ?)", (name, image.id))
                        names[name] = image.id
            faults.point("image.rows-written")
            self._images, self._names = images, names
            self._refresh()
            return [images[image.id] for image, _ in added]

    def tag(self, ref: str, name: str) -> None:
        """Point ``name`` at an image, taking it from the one that had it."""
        with self.lock:
            image, parsed = self.resolve(ref), reference.parse(name)
            if parsed.digest:
                raise InvalidArgument("refusing to create a tag with a digest reference")
            tagged = msgspec.structs.replace(image, last_tagged=time.time_ns(), hidden=False)
            with self._db.transaction() as tx:
                _write(tx, tagged)
                tx.execute("INSERT OR REPLACE INTO image_names VALUES (?, ?)", (str(parsed), image.id))
            faults.point("image.tagged")
            self._images = {**self._images, image.id: tagged}
            self._names = {**self._names, str(parsed): image.id}
            self._refresh()

    def remove(self, ref: str, force: bool, in_use: InUse, rehearsal: removal.Rehearsal | None = None) -> Rows:
        """Untag, and delete when nothing needs it; Conflict in Docker's words.

        ``in_use`` gives (container id, running) for an image id.  With ``force`` an image goes although stopped
        containers were made from it: it is hidden then, and its layers go at a later removal, when they do.  With a
        ``rehearsal`` nothing changes but that, and the answer is the same.
        """
        with self.lock:
            image = self.resolve(ref)
            names = [name for name, image_id in self._names.items() if image_id == image.id]
            if rehearsal is not None:
                names = [name for name in names if name not in rehearsal.names]
            users = in_use(image.id)
            if image.id in self._pins:
                users = [*users, ("(being created)", True)]
            doomed, gone = removal.plan(image, names, ref, users, force=force, is_name=self._is_name(ref))
            rows = [{"Untagged": reference.parse(name).familiar} for name in doomed]
            rows += [{"Deleted": image.id}] if gone else []
            forgotten = [i for i in self._images.values() if i.hidden and i.id not in self._pins and not in_use(i.id)]
            forgotten += [image] if gone and not users else []
            if rehearsal is not None:
                rehearsal.names.update(doomed)
                rehearsal.images.update(i.id for i in forgotten)
                chains = self._unneeded({part for i in forgotten for part in i.parts()}, rehearsal.images)
                return rows + [{"Deleted": chain} for chain in reversed(image.chain_ids) if chain in chains]
            with self._db.transaction() as tx:
                tx.executemany("DELETE FROM image_names WHERE name = ?", [(name,) for name in doomed])
                tx.executemany("DELETE FROM images WHERE id = ?", [(i.id,) for i in forgotten])
                images = {k: v for k, v in self._images.items() if v not in forgotten}
                if gone and users:
                    images[image.id] = msgspec.structs.replace(image, hidden=True)
                    _write(tx, images[image.id])
            faults.point("image.rows-deleted")
            self._images = images
            self._names = {name: image_id for name, image_id in self._names.items() if name not in doomed}
            self._refresh()
        chains = self._collect({part for i in forgotten for part in i.parts()})
        return rows + [{"Deleted": chain} for chain in reversed(image.chain_ids) if chain in chains]

    def _is_name(self, ref: str) -> bool:
        try:
            return str(reference.parse(ref)) in self._names
        except InvalidArgument:
            return False

    @contextmanager
    def pinned(self, image: Image) -> Iterator[None]:
        """Removal takes the image as in use by a running container: for a container that is being made from it.

        NotFound when it has gone meanwhile.
        """
        with self.lock:
            if image.id not in self._images:
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
        for directory in filter(None, directories.values()):
            self.layers.abort(directory)
        return {name for name, directory in directories.items() if directory}

    def _unneeded(self, candidates: set[str], without: Collection[str] = ()) -> set[str]:
        """Those that no lease holds and no image needs, except images ``without``."""
        kept = (image.parts() for image in self._images.values() if image.id not in without)
        return candidates - self._leases.held().union(*kept)

    def _refresh(self) -> None:
        """Recompute what is derived from the tables: names in images, the look-up cache, ``index.json``."""
        names: dict[str, Strings] = {}
        digests: dict[str, Strings] = {}
        for name, image_id in sorted(self._names.items()):
            parsed = reference.parse(name)
            names.setdefault(image_id, []).append(parsed.familiar)
            digest = f"{parsed.familiar_repository}@{self._images[image_id].manifest}"
            if digest not in digests.setdefault(image_id, []):
                digests[image_id].append(digest)
        for image in self._images.values():
            image.repo_tags = names.get(image.id, [])
            image.repo_digests = digests.get(image.id, [])
        self._found = {}
        self._write_index()

    def _write_index(self) -> None:
        """Tell other programs what is here (image-spec v1.1 §index.json); several names are several entries."""
        entries = [
            oci.Descriptor(
                media_type=oci.MANIFEST,
                digest=image.manifest,
                size=self.content.size(image.manifest),
                annotations={"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
                platform=image.platform,
            )
            for name, image in ((n, self._images[i]) for n, i in sorted(self._names.items()))
            if self.content.exists(image.manifest)
        ]
        self.content.write_index(oci.encode(oci.Index(manifests=entries, media_type=oci.INDEX)))

    # -- long work (each in a module of its own) -----------------------------------------------

    def load(self, source: IO[bytes], progress: Progress) -> Images:
        """Read a docker-save or OCI-layout archive (InvalidArgument when it is neither, or broken)."""
        from ketch.images.load import load

        return load(self, source, progress)

    def save(self, refs: Sequence[str], target: IO[bytes]) -> None:
        """Write images as one archive that Docker and OCI tools both read."""
        from ketch.images.save import save

        save(self, refs, target)

    def import_(
        self,
        source: IO[bytes],
        *,
        repo: str = "",
        tag: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        progress: Progress = lambda _item: None,
    ) -> Image:
        """Make an image of one layer from the tar of a root filesystem."""
        from ketch.images.importer import import_rootfs

        return import_rootfs(self, source, repo=repo, tag=tag, changes=changes, message=message, progress=progress)

    def bootstrap(self, ref: str, progress: Progress) -> Image:
        """Make ``debian:SUITE`` or ``busybox`` from the distribution's packages."""
        from ketch.images.bootstrap import bootstrap

        return bootstrap(self, ref, progress)


def _write(tx: Connection, image: Image) -> None:
    record = _encode(msgspec.structs.replace(image, repo_tags=[], repo_digests=[]))
    tx.execute("INSERT INTO images VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
               (image.id, record))  # fmt: skip
