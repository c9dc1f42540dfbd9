"""The catalog: names (tags and digests) → manifests and indexes → images, as one immutable snapshot.

    docker.io/library/app:1                 a tag
    docker.io/library/app@sha256:…          what a pull or a push has seen the repository call it

A name stands for a *target*: an image's manifest, or an index of manifests for several platforms.  Those of an
index's images that are here are the name's *variants*; it means the one that this machine runs best, unless a platform
is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import ImageNotFound, InvalidArgument, PlatformMismatch
from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ketch.images.model import Image
    from ketch.oci import manifest as oci

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")


class Named(NamedTuple):
    """The meaning of a name: its image on this machine, and the digest of its target."""

    id: str
    target: str


class Indexes(NamedTuple):
    """Indexes by digest, and of each the attestation manifests that are here: digest → blobs."""

    found: Mapping[str, oci.Index]
    attested: Mapping[str, Mapping[str, frozenset[str]]]


class Catalog:
    """Images by id, names, and the indexes among the names' targets, with the attestations that are here."""

    def __init__(self, images: Mapping[str, Image], names: Mapping[str, Named], indexes: Indexes) -> None:
        self.images, self.names = images, names
        self.indexes, self.attested = indexes
        self._by_manifest = {m: image for image in images.values() for m in (image.manifest, *image.forms)}
        self._of: dict[str, list[str]] = {}
        for name, named in sorted(names.items()):
            for image in {i.id: i for i in (*self.variants(name), images[named.id])}:
                self._of.setdefault(image, []).append(name)
        self._found: dict[tuple[str, str], Image] = {}
        self._children: dict[str, set[str]] = {}
        for child in images.values():
            if child.parent and not child.hidden:
                self._children.setdefault(child.parent, set()).add(child.id)

    def has_children(self, image_id: str, without: Collection[str] = ()) -> bool:
        """Whether images, but for those ``without``, were committed on this one."""
        return not self._children.get(image_id, set()) <= {*without}

    def resolve(self, ref: str, platform: str = "") -> Image:
        """The image of a name, id or id prefix (NotFound in Docker's words, InvalidArgument: ambiguous).

        With a ``platform`` (``linux/arm64``) a name's variant for it, when that is here.
        """
        found = self._found.get((ref, platform))
        if found is None:
            found = self._found[ref, platform] = self._look_up(ref, platform)
        return found

    def _look_up(self, ref: str, platform: str) -> Image:
        match = _ID.match(ref)
        if match and len(match[1]) == 64:
            exact = self.images.get(f"sha256:{match[1]}")
            if exact is not None:
                return _of_platform([exact], ref, platform)
        try:
            name = self.name_of(ref)
        except InvalidArgument:
            if not match:
                raise
            name = None
        if name is not None:
            default = self.images[self.names[name].id]
            return _of_platform([default, *self.variants(name)], ref, platform)
        if match:
            matches = [i for key, i in self.images.items() if key.startswith(f"sha256:{match[1]}") and not i.hidden]
            if len(matches) == 1:
                return _of_platform(matches, ref, platform)
            if matches:
                raise InvalidArgument(f"image id prefix {ref} is ambiguous", hint="give more digits")
        if match and len(match[1]) == 64:
            raise ImageNotFound(f"No such image: sha256:{match[1]}")
        raise ImageNotFound(f"No such image: {reference.parse(ref).familiar_whole}")

    def name_of(self, ref: str) -> str | None:
        """The normalized name that ``ref`` is or means; None when unknown (InvalidArgument: no reference).

        ``repository@digest`` means any name of the repository whose target, manifest or image has that digest: clients
        print all of them.
        """
        parsed = reference.parse(ref)
        if str(parsed) in self.names:
            return str(parsed)
        if not parsed.digest:
            return None
        for name, named in self.names.items():
            if reference.parse(name).repository != parsed.repository:
                continue
            if parsed.digest in (named.target, named.id, self.images[named.id].manifest):
                return name
        return None

    def variants(self, name: str) -> list[Image]:
        """The local images of a name's index, in the index's order; for a single image, that one."""
        named = self.names[name]
        index = self.indexes.get(named.target)
        if index is None:
            return [self.images[named.id]]
        found = (self._by_manifest.get(descriptor.digest) for descriptor in index.manifests)
        return [image for image in found if image is not None]

    def attestations(self, target: str) -> set[str]:
        """The blobs of the attestations in an index."""
        return {blob for blobs in self.attested.get(target, {}).values() for blob in blobs}

    def by_manifest(self, digest: str) -> Image | None:
        """The image with that manifest."""
        return self._by_manifest.get(digest)

    def names_of(self, image_id: str) -> list[str]:
        """All names of an image, including those that mean another variant here."""
        return self._of.get(image_id, [])

    def in_repository(self, repository: str) -> list[str]:
        """The local tags of a repository, as normalized names."""
        return [n for n in self.names if "@" not in n and reference.parse(n).repository == repository]

    def choose(self, target: str, fallback: str) -> str:
        """The id of the local image of a name with this target; ``fallback`` when none of an index matches."""
        index = self.indexes.get(target)
        if index is None:
            return fallback
        here = [image for d in index.manifests if (image := self._by_manifest.get(d.digest)) is not None]
        best = platforms.best(platforms.host(), [image.platform for image in here])
        return fallback if best is None else here[best].id


def _of_platform(images: list[Image], ref: str, platform: str) -> Image:
    """The first image for the platform (empty: any); PlatformMismatch in Docker's words."""
    if not platform:
        return images[0]
    wanted = platforms.parse(platform)
    for image in images:
        if platforms.matches(wanted, image.platform):
            return image
    actual = platforms.text(platforms.normalize(images[0].platform))
    raise PlatformMismatch(
        f"image with reference {ref} was found but its platform ({actual}) does not match the specified platform "
        f"({platforms.text(wanted)})"
    )
