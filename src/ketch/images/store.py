"""The images that are here: names → images → layers and blobs.

Everything is sync and may be called from any thread; look-ups are answered from memory.  Adding and
removing hold one lock, so that removal never takes a layer that an image being added relies on.
"""

from __future__ import annotations

import os
import re
import threading
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.errors import Conflict, InvalidArgument, NotFound
from ketch.images.model import Image
from ketch.oci import manifest as oci
from ketch.oci import reference
from ketch.oci.config import parse_time
from ketch.storage.content import ContentStore
from ketch.storage.snapshots import Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.storage.db import Database

    InUse = Callable[[str], list[tuple[str, bool]]]
    Progress = Callable[[dict[str, Any]], None]

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")
_encode = msgspec.json.Encoder().encode
Images = list[Image]
Strings = list[str]
Users = list[tuple[str, bool]]
Rows = list[dict[str, Any]]


class ImageStore:
    """All images of one daemon, with their content under ``data_root``."""

    def __init__(self, db: Database, data_root: str) -> None:
        self._db = db
        self.content = ContentStore(os.path.join(data_root, "content"))
        self.layers = Layers(data_root)
        self.lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self._found: dict[str, Image] = {}
        decode = msgspec.json.Decoder(Image).decode
        for row in db.query("SELECT record FROM images"):
            image = decode(row["record"])
            self._images[image.id] = image
        for row in db.query("SELECT name, id FROM image_names"):
            self._names[row["name"]] = row["id"]
        self._refresh()

    # -- looking -------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By name, id or id prefix; NotFound in Docker's words, InvalidArgument when ambiguous."""
        found = self._found.get(ref)
        if found is None:
            found = self._found[ref] = self._look_up(ref)
        return found

    def _look_up(self, ref: str) -> Image:
        match = _ID.match(ref)
        if match and (exact := self._images.get(f"sha256:{match[1]}")) is not None:
            return exact
        try:
            parsed = reference.parse(ref)
        except InvalidArgument:
            if not match:
                raise
        else:
            if parsed.digest:
                for image in self._images.values():
                    if parsed.digest in (image.manifest, image.id):
                        return image
            elif image_id := self._names.get(str(parsed)):
                return self._images[image_id]
        if match:
            matches = [i for key, i in self._images.items() if key.startswith(f"sha256:{match[1]}")]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidArgument(f"image id prefix {ref} is ambiguous", hint="give more digits")
        raise NotFound(f"No such image: {ref if match or ':' in ref or '@' in ref else ref + ':latest'}")

    def list(self) -> Images:
        """Every image, newest first."""
        return sorted(self._images.values(), key=lambda i: i.created, reverse=True)

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

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        sizes: dict[str, int] = {}
        for image in self._images.values():
            sizes.update(zip(image.chain_ids, image.layer_sizes, strict=True))
        return sum(sizes.values())

    # -- changing ------------------------------------------------------------------------------

    def add(self, image: Image, names: Sequence[str] = ()) -> Image:
        """Record an image whose blobs and layers are in place, and point ``names`` (normalized) at it."""
        with self.lock:
            with self._db.transaction() as tx:
                tx.execute("INSERT OR REPLACE INTO images VALUES (?, ?)", (image.id, _encode(_bare(image))))
                for name in names:
                    tx.execute("INSERT OR REPLACE INTO image_names VALUES (?, ?)", (name, image.id))
            self._images[image.id] = image
            self._names.update(dict.fromkeys(names, image.id))
            self._refresh()
        return self._images[image.id]

    def tag(self, ref: str, name: str) -> None:
        """Point ``name`` at an image, taking it from the one that had it."""
        with self.lock:
            image, parsed = self.resolve(ref), reference.parse(name)
            if parsed.digest:
                raise InvalidArgument("refusing to create a tag with a digest reference")
            if _ID.match(parsed.familiar_repository) and len(parsed.familiar_repository) == 64:
                raise InvalidArgument(f"invalid repository name ({name}): 64 hexadecimal digits look like an id")
            with self._db.transaction() as tx:
                tx.execute("INSERT OR REPLACE INTO image_names VALUES (?, ?)", (str(parsed), image.id))
            self._names[str(parsed)] = image.id
            self._refresh()

    def remove(self, ref: str, force: bool, in_use: InUse) -> Rows:
        """Untag, and delete when no name and no container is left; Conflict in Docker's words."""
        with self.lock:
            image = self.resolve(ref)
            users = in_use(image.id)
            short = image.id[7:19]
            by_id = bool(_ID.match(ref)) and not self._is_name(ref)
            names = [n for n, i in self._names.items() if i == image.id]
            if by_id:
                self._check_removal_by_id(short, image, users, force)
                doomed = names
            else:
                doomed = [str(reference.parse(ref))]
                doomed = doomed if doomed[0] in names else names
                if len(names) <= 1 and users and not force:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                        f"{users[0][0][:12]} is using its referenced image {short}"
                    )
            rows = [{"Untagged": reference.parse(name).familiar} for name in doomed]
            with self._db.transaction() as tx:
                for name in doomed:
                    tx.execute("DELETE FROM image_names WHERE name = ?", (name,))
                if len(doomed) == len(names) and not users:
                    tx.execute("DELETE FROM images WHERE id = ?", (image.id,))
            for name in doomed:
                del self._names[name]
            if len(doomed) == len(names) and not users:
                del self._images[image.id]
                rows.append({"Deleted": image.id})
                rows += [{"Deleted": chain} for chain in self._collect(image)]
            self._refresh()
        return rows

    def _is_name(self, ref: str) -> bool:
        try:
            return str(reference.parse(ref)) in self._names
        except InvalidArgument:
            return False

    @staticmethod
    def _check_removal_by_id(short: str, image: Image, users: Users, force: bool) -> None:
        for container, running in users:
            if running:
                raise Conflict(
                    f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container "
                    f"{container[:12]}"
                )
            if not force:
                raise Conflict(
                    f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container "
                    f"{container[:12]}"
                )
        repositories = {tag.rpartition(":")[0] for tag in image.repo_tags}
        if len(repositories) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )

    def _collect(self, image: Image) -> Strings:
        """Delete the layers and blobs that only ``image`` needed; returns the layers' chain ids, top first."""
        chains = {chain for other in self._images.values() for chain in other.chain_ids}
        blobs = {b for other in self._images.values() for b in (*other.blobs, other.manifest, other.id)}
        gone = [chain for chain in reversed(image.chain_ids) if chain not in chains]
        for chain in gone:
            self.layers.remove(chain)
        for blob in (*image.blobs, image.manifest, image.id):
            if blob not in blobs:
                self.content.remove(blob)
        return gone

    def forget_unused(self, digests: Sequence[str]) -> None:
        """Delete those of these blobs that no image needs (after a load that used only some, or failed)."""
        with self.lock:
            needed = {b for i in self._images.values() for b in (*i.blobs, i.manifest, i.id)}
            for digest in digests:
                if digest not in needed:
                    self.content.remove(digest)

    def _refresh(self) -> None:
        """Recompute what is derived from the tables: names in images, the look-up cache, ``index.json``."""
        names: dict[str, list[str]] = {}
        digests: dict[str, list[str]] = {}
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
        entries = []
        for name, image_id in sorted(self._names.items()):
            image = self._images[image_id]
            entries.append(
                oci.Descriptor(
                    media_type=oci.MANIFEST,
                    digest=image.manifest,
                    size=self.content.size(image.manifest),
                    annotations={"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
                )
            )
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


def _bare(image: Image) -> Image:
    return msgspec.structs.replace(image, repo_tags=[], repo_digests=[])
