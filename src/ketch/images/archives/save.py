"""``save``: one archive that is an OCI image-layout and a ``docker save`` archive at once."""

from __future__ import annotations

import tarfile
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

from ketch.errors import InvalidArgument
from ketch.images import layoutindex
from ketch.images.archives.docker_manifest import DockerEntry
from ketch.images.made.blobs import ImageBlobs
from ketch.oci import digest, reference
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ketch.images.model import Image
    from ketch.images.store import ImageStore

_BLOCK = tarfile.BLOCKSIZE


class _Chosen(NamedTuple):
    """One entry of the archive: a name ("" for none), the images to be saved, and the index that they are in, if any.

    ``target``: its digest; ``attested``: the blobs of the attestations in the index.
    """

    name: str
    images: list[Image]
    target: str = ""
    listed: oci.Index | None = None
    attested: Sequence[str] = ()
    annotations: Mapping[str, str] = {}


def save(store: ImageStore, refs: Sequence[str], target: IO[bytes], platforms: Sequence[str] = ()) -> None:
    """Write the images that ``refs`` name (NotFound).

    A name with a tag saves that name, one without all names of the repository; an id saves the content unnamed.  Of a
    name for several platforms all go that are here, with their index; or those of ``platforms``, each for itself.
    """
    with store.lease() as lease:
        chosen = list(dict.fromkeys(_key(entry) for ref in refs for entry in _named(store, ref)))
        entries = [_choose(store, name, ref, platforms) for name, ref in chosen]
        for entry in entries:
            lease.hold(*filter(None, [entry.target]), *(part for image in entry.images for part in image.parts()))
            lease.hold(*entry.attested)
            for image in entry.images:
                store.resolve(image.id)  # it may have gone before it was held (NotFound)
        _write_whole(store, target, entries)


class InLayout(NamedTuple):
    """The place of images in an archive's image-layout.

    ``index_digest``: of the index that they are in, which the caller holds with its attestations; ``annotations``: of
    what describes index or images in the layout.
    """

    index_digest: str = ""
    annotations: Mapping[str, str] = {}


def save_as(
    store: ImageStore, images: Sequence[Image], names: Sequence[str], target: IO[bytes], place: InLayout
) -> None:
    """Write images, which the caller holds, under names that they need not have here; without any, unnamed."""
    index = place.index_digest
    full = [str(reference.parse(name)) for name in names]
    found = layoutindex.read(store.content, index) if index else None
    attested = _blobs(layoutindex.attested(store.content, found)) if found is not None else []
    one = _Chosen("", list(images), index, found, attested, place.annotations)
    _write_whole(store, target, [one._replace(name=name) for name in full or [""]])


def _write_whole(store: ImageStore, target: IO[bytes], entries: list[_Chosen]) -> None:
    _check_whole(store, entries)
    _write(store, target, entries)
    target.write(bytes(2 * _BLOCK))


def _key(found: tuple[Image, str]) -> tuple[str, str]:
    image, name = found
    return name, name or image.id


def _choose(store: ImageStore, name: str, ref: str, platforms: Sequence[str]) -> _Chosen:
    catalog = store.catalog
    images = [store.resolve(ref, platform) for platform in platforms] or [store.resolve(ref)]
    full = catalog.name_of(name) if name else None
    if full is None:
        return _Chosen("", images)
    if platforms:
        return _Chosen(full, images)
    target = catalog.names[full].target
    images = list({image.id: image for image in (*images, *catalog.variants(full))}.values())
    index = catalog.indexes.get(target)
    if index is None:
        return _Chosen(full, images)
    return _Chosen(full, images, target, index, _blobs(catalog.attested[target]))


def _blobs(attested: Mapping[str, Collection[str]]) -> list[str]:
    return sorted({blob for blobs in attested.values() for blob in blobs})


def _check_whole(store: ImageStore, entries: list[_Chosen]) -> None:
    """Check, before a byte is written, that every blob exists with its size (NotFound, InvalidArgument)."""
    content = store.content
    for entry in entries:
        blobs = ImageBlobs(store, entry.images)
        for blob in (entry.target, *entry.attested) if entry.target else ():
            content.size(blob)
        for image in entry.images:
            digest_of = _manifest(entry, image)
            manifest = msgspec.json.decode(content.read(digest_of), type=oci.Manifest)
            for descriptor in (manifest.config, *manifest.layers):
                descriptor.check_size(blobs.size(descriptor.digest))


def _write(store: ImageStore, target: IO[bytes], entries: list[_Chosen]) -> None:
    _add(target, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    latest = max((image.created for entry in entries for image in entry.images), default=0)
    for directory in ("blobs", "blobs/sha256"):
        target.write(_header(directory, 0, latest, directory=True))
    written: set[str] = set()
    for entry in entries:
        blobs = ImageBlobs(store, entry.images)
        for image in entry.images:
            manifest = _manifest(entry, image)
            for blob in (image.id, *image.blobs_of(manifest), manifest):
                if blob not in written:
                    written.add(blob)
                    _add_blob(blobs, target, blob, image.created if blob != manifest else 0)
        for blob in (*entry.attested, entry.target) if entry.target else ():
            if blob not in written:
                written.add(blob)
                _add_blob(blobs, target, blob)
    _add(target, "index.json", oci.encode(_index(store, entries)))
    _add(target, "manifest.json", msgspec.json.encode(_docker_entries(store, entries)))
    if repositories := _repositories(entries):
        _add(target, "repositories", msgspec.json.encode(repositories))


def _manifest(entry: _Chosen, image: Image) -> str:
    """The image's manifest in the archive: that of its index, if any."""
    for descriptor in entry.listed.manifests if entry.listed is not None else ():
        if descriptor.digest in (image.manifest, *image.forms):
            return descriptor.digest
    return image.manifest


def _named(store: ImageStore, ref: str) -> list[tuple[Image, str]]:
    """The images of a reference, each with the name to save it under ("" for an id)."""
    try:
        parsed = reference.parse(ref)
    except InvalidArgument:
        parsed = None
    if parsed is not None and not parsed.digest and ref in (parsed.repository, parsed.familiar_repository):
        names = store.names_in(parsed.repository)
        if names:
            return [(store.resolve(name), name) for name in names]
    image = store.resolve(ref)
    return [(image, str(parsed) if parsed is not None and parsed.familiar in image.repo_tags else "")]


def named_images(store: ImageStore, ref: str) -> list[Image]:
    """The images that a reference names here (NotFound)."""
    return [image for image, _ in _named(store, ref)]


def _index(store: ImageStore, entries: list[_Chosen]) -> oci.Index:
    found = []
    for entry in entries:
        tag = reference.parse(entry.name).tag or entry.name if entry.name else ""
        named = {"io.containerd.image.name": entry.name, "org.opencontainers.image.ref.name": tag}
        annotations = {**entry.annotations, **(named if entry.name else {})} or None
        if entry.listed is not None:
            kind = entry.listed.media_type or oci.INDEX
            size = store.content.size(entry.target)
            found.append(oci.Descriptor(media_type=kind, digest=entry.target, size=size, annotations=annotations))
            continue
        found += [
            oci.Descriptor(
                media_type=oci.MANIFEST,
                digest=image.manifest,
                size=store.content.size(image.manifest),
                annotations=annotations,
                platform=image.platform,
            )
            for image in entry.images
        ]
    return oci.Index(manifests=found, media_type=oci.INDEX)


def _docker_entries(store: ImageStore, entries: list[_Chosen]) -> list[DockerEntry]:
    """``manifest.json`` for readers that know no index: each image; of several with one name, one has it."""
    tags: dict[tuple[str, str], list[str]] = {}
    images = {image.id: image for entry in entries for image in entry.images}
    for entry in entries:
        for number, image in enumerate(entry.images):
            found = tags.setdefault((image.id, _manifest(entry, image)), [])
            if entry.name and not number:
                found.append(reference.parse(entry.name).familiar)
    return [
        DockerEntry(
            config=_path(image_id),
            repo_tags=names or None,
            layers=[_path(blob) for blob in images[image_id].blobs_of(manifest)],
            layer_sources=_sources(store, images[image_id], manifest),
        )
        for (image_id, manifest), names in tags.items()
    ]


def _sources(store: ImageStore, image: Image, manifest: str) -> dict[str, oci.Descriptor]:
    layers = msgspec.json.decode(store.content.read(manifest), type=oci.Manifest).layers
    return {
        diff_id: oci.Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        for diff_id, layer in zip(image.diff_ids, layers, strict=False)
    }


def _repositories(entries: list[_Chosen]) -> dict[str, dict[str, str]]:
    """Tags by repository, for readers that know nothing newer."""
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        parsed = reference.parse(entry.name) if entry.name else None
        if parsed is not None and parsed.tag and entry.images:
            image = entry.images[0]
            top = image.diff_ids[-1] if image.diff_ids else image.id
            found.setdefault(parsed.familiar_repository, {})[parsed.tag] = digest.hexadecimal(top)
    return found


def _path(blob: str) -> str:
    return f"blobs/sha256/{digest.hexadecimal(blob)}"


def _add(target: IO[bytes], name: str, data: bytes) -> None:
    target.write(_header(name, len(data)) + data + bytes(-len(data) % _BLOCK))


def _add_blob(blobs: ImageBlobs, target: IO[bytes], blob: str, time_ns: int = 0) -> None:
    size = blobs.size(blob)
    target.write(_header(_path(blob), size, time_ns))
    blobs.copy(blob, target, size)
    target.write(bytes(-size % _BLOCK))


def _header(name: str, size: int, time_ns: int = 0, *, directory: bool = False) -> bytes:
    """The header of a member (`tarfile` itself would copy all bytes in small pieces, several times)."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = max(0, time_ns // 10**9)
    info.mode = 0o755 if directory else 0o644
    if directory:
        info.type = tarfile.DIRTYPE
    return info.tobuf(tarfile.PAX_FORMAT)
