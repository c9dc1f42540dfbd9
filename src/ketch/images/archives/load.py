"""``load``: archives of ``docker save`` and OCI image-layouts, plain or compressed, with one image or several.

Every file of the archive goes to the content store first (so nothing is read twice, and digests in names
are checked); then ``manifest.json`` or ``index.json`` says what they are.  The lease takes away what no image uses.
What is large is taken for a layer and unpacked while it arrives (`streaming_unpack`), before anybody knows what it is.
"""

from __future__ import annotations

import functools
import os
import posixpath
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.errors import DataLoss, InvalidArgument
from ketch.images.archives import oldest
from ketch.images.archives.docker_manifest import DockerEntry
from ketch.images.archives.importer import architecture
from ketch.images.archives.streaming_unpack import LARGE, StreamingUnpack
from ketch.images.assembly import descriptor_of, make_image, write_manifest
from ketch.images.made.image import layers_of_images
from ketch.images.unpack import check, diff_id_of, unpack_blob
from ketch.oci import digest, platform, reference
from ketch.oci import manifest as oci
from ketch.oci.config import decode as decode_config
from ketch.storage.archive import compression, tar
from ketch.storage.archive.extract import clean
from ketch.storage.snapshots.overlay import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.images.catalog import Named
    from ketch.images.model import Image
    from ketch.images.progress import Report
    from ketch.images.store import ImageStore
    from ketch.oci.config import ImageConfig
    from ketch.storage.content.leases import Lease


_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_BLOBS = "blobs/sha256/"
_MAX_LINKS = 10
_MAX_FILES = 10_000
_NOT_AN_IMAGE = "use `import` for the tar of a root filesystem"


Found = list[tuple["Image", list[str]]]


def load(store: ImageStore, source: IO[bytes], progress: Report, platforms: Sequence[str] = ()) -> list[Image]:
    """Read an archive; returns its images (InvalidArgument for a broken one, of which nothing stays).

    Of an image for several platforms all that the archive has whole, or those of ``platforms``.
    """
    with store.lease() as lease, StreamingUnpack(store, lease) as streaming:
        archive = _Archive(store, lease, streaming)
        with compression.reader(source, "archive") as plain:
            archive.read(plain)
        streaming.wait()
        targets: dict[str, str] = {}
        is_old = False
        if "index.json" in archive.files and (platforms or "manifest.json" not in archive.files or archive.has_index()):
            found = _read_layout(store, archive, progress, platforms, targets)
        elif archive.has_file("manifest.json"):
            found = _read_docker(store, archive, progress)
        elif is_old := archive.has_file(oldest.REPOSITORIES):
            found = _read_oldest(store, archive, progress)
        else:
            raise InvalidArgument(
                "load: the archive has neither manifest.json nor index.json, and no repositories either",
                hint="use `import` for the tar of a root filesystem",
            )
        before = store.catalog.names
        images = store.add(found, targets)
    if not is_old:
        for image, names in found:
            _tell(image, names, before, progress)
    return images


def _tell(image: Image, names: Sequence[str], before: Mapping[str, Named], progress: Report) -> None:
    """Report an image that has been loaded; of the oldest format Docker tells nothing."""
    for name in names:
        shown = reference.parse(name).familiar
        if name in before and before[name].id != image.id:
            old = f"The image {shown} already exists, renaming the old one with ID {before[name].id} to empty string"
            progress({"stream": f"{old}\n"})
        progress({"stream": f"Loaded image: {shown}\n"})
    if not names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})


class _Archive:
    """The files of an archive by name, as blobs that the lease holds."""

    def __init__(self, store: ImageStore, lease: Lease, streaming: StreamingUnpack) -> None:
        self._store = store
        self.lease = lease
        self.streaming = streaming
        self.files: dict[str, str] = {}
        self.sizes: dict[str, int] = {}  # of the layers unpacked so far: images share them
        self._links: dict[str, str] = {}

    def read(self, source: IO[bytes]) -> None:
        reader = tar.TarReader(source)
        for member in reader:
            name = clean(member.name)
            if len(self.files) + len(self._links) >= _MAX_FILES:
                raise InvalidArgument(f"load: the archive has more than {_MAX_FILES} files", hint=_NOT_AN_IMAGE)
            if member.kind == tar.FILE:
                self._file(reader, member, name)
            elif member.kind == tar.SYMLINK:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                self._links[name] = clean(target, "link")
            elif member.kind == tar.LINK:
                self._links[name] = clean(member.linkname, "hard link")
            elif member.kind != tar.DIRECTORY:
                raise InvalidArgument(f"load: `{member.name}` is neither a file nor a directory", hint=_NOT_AN_IMAGE)

    def _file(self, reader: tar.TarReader, member: tar.Member, name: str) -> None:
        expected = None
        if name.startswith(_BLOBS):
            expected = digest.check("sha256:" + name.removeprefix(_BLOBS))
            self.lease.hold(expected)
            if self._store.content.exists(expected):
                self.files[name] = expected  # the bytes here were verified when they came
                return
        chunks = (data for _, data in reader.chunks(member))
        if member.size >= LARGE and member.extents is None:
            self.streaming.take(chunks, member.size, expected, functools.partial(self.files.__setitem__, name))
            return
        with self._store.content.ingest(expected, hold=self.lease.hold, durable=False) as ingest:
            for data in chunks:
                ingest.write(data)
        self.files[name] = ingest.digest

    def has_file(self, name: str) -> bool:
        """Whether the archive has a file, or a link, of this name."""
        return name in self.files or name in self._links

    def blob(self, name: str) -> str:
        """The digest of a file, links followed (InvalidArgument when it is missing)."""
        path = clean(name)
        for _ in range(_MAX_LINKS):
            if path in self.files:
                return self.files[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidArgument(f"load: `{name}` is missing in the archive")

    def described(self, descriptor: oci.Descriptor) -> str:
        """The digest of a descriptor, when the archive has that blob and it has that size (InvalidArgument)."""
        found = self.blob(_BLOBS + digest.hexadecimal(digest.check(descriptor.digest)))
        self.check_size(descriptor)
        return found

    def check_size(self, descriptor: oci.Descriptor) -> None:
        """Raise InvalidArgument when the blob has not its descriptor's size; it need not be in the archive."""
        if self.has(descriptor.digest):
            descriptor.check_size(self._store.content.size(descriptor.digest))

    def has(self, name: str) -> bool:
        """Whether the archive has the blob with this digest."""
        return _BLOBS + digest.hexadecimal(name) in self.files

    def has_index(self) -> bool:
        """Whether the archive has an image for several platforms, which ``manifest.json`` cannot describe."""
        index: oci.Index = self.json(self.files["index.json"], oci.Index, "index.json")
        return any(d.media_type in oci.INDEXES and self.has(d.digest) for d in index.manifests)

    def json(self, blob: str, kind: Any, what: str) -> Any:
        """A blob decoded (InvalidArgument with its name)."""
        return self.decoded(blob, lambda data: msgspec.json.decode(data, type=kind), what)

    def decoded(self, blob: str, decode: Callable[[bytes], Any], what: str) -> Any:
        """A blob as ``decode`` reads it (InvalidArgument with its name)."""
        try:
            return decode(self._store.content.read(blob))
        except (msgspec.DecodeError, UnicodeDecodeError, DataLoss) as e:
            raise InvalidArgument(f"load: {what}: {e}") from e
        except RecursionError as e:
            raise InvalidArgument(f"load: {what}: it is nested too deeply") from e


def _read_docker(store: ImageStore, archive: _Archive, progress: Report) -> Found:
    entries = archive.json(archive.blob("manifest.json"), list[DockerEntry] | None, "manifest.json")
    if entries is None:
        raise InvalidArgument("invalid manifest, manifest cannot be null (but can be [])")
    found: Found = []
    manifests = _manifests_by_config(archive)
    for entry in entries:
        config_blob = archive.blob(entry.config)
        config = _config(archive, config_blob)
        layers = _layers(store, archive, entry.layers or (), config)
        blobs = [layer.digest for layer in layers]
        names = [_tagged(tag) for tag in entry.repo_tags or ()]
        sizes = _unpack(store, archive, config, blobs, progress)
        known = manifests.get(config_blob)
        if known is not None and [d.digest for d in known[1].layers] == blobs:
            manifest = known[0]
        else:
            manifest = write_manifest(store.content, archive.lease, config_blob, layers)
        found.append((make_image(config_blob, manifest, config, blobs, sizes), names))
    return found


def _layers(store: ImageStore, archive: _Archive, paths: Sequence[str], config: ImageConfig) -> list[oci.Descriptor]:
    """The layers' blobs, lowest first; one that is not in the archive is an image's that is here (InvalidArgument).

    Programs leave out what they know to be here, or give such a layer a name that no file has.
    """
    _check_count(config, len(paths))
    chains = digest.chain_ids(config.rootfs.diff_ids)
    lacking = {chain for chain, path in zip(chains, paths, strict=True) if not archive.has_file(clean(path))}
    here = layers_of_images(store, archive.lease, lacking)
    return [
        here[chain].descriptor
        if chain in lacking and chain in here
        else descriptor_of(store.content, archive.blob(path))
        for chain, path in zip(chains, paths, strict=True)
    ]


def _tagged(text: str) -> str:
    """The normalized name of one of an archive's ``RepoTags``, which must have a tag."""
    parsed = reference.parse(text)
    if not text.partition("@")[0].endswith(f":{parsed.tag}") or not parsed.tag:
        raise InvalidArgument(f'invalid tag "{text}"')
    return f"{parsed.repository}:{parsed.tag}"


def _read_oldest(store: ImageStore, archive: _Archive, progress: Report) -> Found:
    """The images of the format before ``manifest.json`` (`oldest`)."""

    def read(name: str) -> Any:
        return archive.json(archive.blob(name), Any, name)

    found: dict[str, tuple[Image, list[str]]] = {}
    for top, names in oldest.images(read, archive.has_file):
        parent = ""
        for layers in top.upwards():
            ident = layers.ids[-1]
            if ident not in found:
                image = _read_old(store, archive, layers, progress)
                image.parent = parent
                found[ident] = image, []
            parent = found[ident][0].id
        found[top.ids[-1]][1].extend(names)
    return list(found.values())


def _read_old(store: ImageStore, archive: _Archive, layers: oldest.OldImage, progress: Report) -> Image:
    blobs = [archive.blob(path) for path in layers.paths]
    diff_ids = [archive.streaming.diff_id(blob) or diff_id_of(store, blob) for blob in blobs]
    data = layers.config(diff_ids)
    config_blob = store.content.put(data, hold=archive.lease.hold, durable=False)
    config = _config(archive, config_blob)
    sizes = _unpack(store, archive, config, blobs, progress)
    described = [descriptor_of(store.content, blob) for blob in blobs]
    manifest = write_manifest(store.content, archive.lease, config_blob, described)
    return make_image(config_blob, manifest, config, blobs, sizes)


def _manifests_by_config(archive: _Archive) -> dict[str, tuple[str, oci.Manifest]]:
    """The OCI manifests that newer ``docker save`` archives carry beside ``manifest.json``."""
    result: dict[str, tuple[str, oci.Manifest]] = {}
    if "index.json" in archive.files:
        for descriptor in _flatten(archive, archive.files["index.json"], depth=0):
            if descriptor.digest in archive.files.values() and descriptor.media_type in oci.MANIFESTS:
                manifest = archive.json(descriptor.digest, oci.Manifest, descriptor.digest)
                for blob in (manifest.config, *manifest.layers):
                    archive.check_size(blob)
                result[manifest.config.digest] = (descriptor.digest, manifest)
    return result


def _read_layout(
    store: ImageStore, archive: _Archive, progress: Report, platforms: Sequence[str], targets: dict[str, str]
) -> Found:
    """The images of an image-layout; ``targets`` gets the indexes that names stand for."""
    wanted = [platform.parse(text) for text in platforms]
    found: dict[str, tuple[Image, list[str]]] = {}
    index: oci.Index = archive.json(archive.files["index.json"], oci.Index, "index.json")
    for top in index.manifests:
        several = top.media_type in oci.INDEXES
        archive.check_size(top)
        manifests = _flatten(archive, archive.described(top), depth=1) if several else [top]
        names = _names(top)
        chosen = [d for d in manifests if _fits(d, wanted, several) and (not several or _is_whole(archive, d))]
        for descriptor in chosen:
            own = names or _names(descriptor)
            if several:
                targets.update(dict.fromkeys(own, top.digest))
            if descriptor.digest in found:  # one image under several names
                found[descriptor.digest][1].extend(own)
                continue
            found[descriptor.digest] = _read_manifest(store, archive, descriptor, progress), list(own)
    if not found:
        asked = ", ".join(platforms) or f"linux/{architecture()}"
        raise InvalidArgument(f"load: the archive has no image for {asked}")
    for target in {*targets.values()}:
        archive.lease.hold(target)
    return list(found.values())


def _read_manifest(store: ImageStore, archive: _Archive, descriptor: oci.Descriptor, progress: Report) -> Image:
    manifest = archive.json(archive.described(descriptor), oci.Manifest, descriptor.digest)
    config_blob = archive.described(manifest.config)
    config = _config(archive, config_blob)
    blobs = [archive.described(layer) for layer in manifest.layers]
    sizes = _unpack(store, archive, config, blobs, progress)
    return make_image(config_blob, descriptor.digest, config, blobs, sizes)


def _is_whole(archive: _Archive, descriptor: oci.Descriptor) -> bool:
    """Whether the archive has all blobs of this image of an index (often it has only some images)."""
    if not archive.has(descriptor.digest):
        return False
    manifest = archive.json(archive.described(descriptor), oci.Manifest, descriptor.digest)
    return all(archive.has(d.digest) for d in (manifest.config, *manifest.layers))


def _flatten(archive: _Archive, blob: str, depth: int) -> list[oci.Descriptor]:
    """The manifests of an index, nested indexes included; names are inherited from outside."""
    if depth > 3:
        raise InvalidArgument("load: indexes are nested too deeply")
    index: oci.Index = archive.json(blob, oci.Index, "index.json")
    result: list[oci.Descriptor] = []
    for descriptor in index.manifests:
        archive.check_size(descriptor)
        if descriptor.media_type not in oci.INDEXES:
            result.append(descriptor)
            continue
        for inner in _flatten(archive, archive.described(descriptor), depth + 1):
            inner.annotations = {**(descriptor.annotations or {}), **(inner.annotations or {})}
            result.append(inner)
    return result


def _fits(descriptor: oci.Descriptor, wanted: Sequence[oci.Platform], several: bool) -> bool:
    """Whether to load the image: a requested platform, else any of an index, else one that runs here."""
    offered = descriptor.platform
    if descriptor.media_type not in oci.MANIFESTS or (offered is not None and offered.architecture == "unknown"):
        return False  # an artifact, or an attestation
    if wanted:
        return offered is not None and any(platform.matches(choice, offered) for choice in wanted)
    return several or offered is None or platform.rank(platform.host(), offered) is not None


def _names(descriptor: oci.Descriptor) -> list[str]:
    for key in _NAMES:
        name = (descriptor.annotations or {}).get(key)
        if name and ("/" in name or ":" in name):  # a bare "latest" says no repository
            return [str(reference.parse(name))]
    return []


def _config(archive: _Archive, blob: str) -> ImageConfig:
    config: ImageConfig = archive.decoded(blob, decode_config, "image configuration")
    if config.os != "linux":
        raise InvalidArgument(f"cannot load {config.os} image on linux")
    for diff_id in config.rootfs.diff_ids:
        digest.check(diff_id)
    return config


def _check_content(store: ImageStore, streaming: StreamingUnpack, blob: str, diff_id: str) -> None:
    """InvalidArgument for a blob that is not its image's layer: `save` and `push` hand it on."""
    if blob != diff_id:
        check(blob, streaming.diff_id(blob) or diff_id_of(store, blob), diff_id)


def _check_count(config: ImageConfig, count: int) -> None:
    if len(config.rootfs.diff_ids) != count:
        raise InvalidArgument(
            f"invalid manifest, layers length mismatch: expected {count}, got {len(config.rootfs.diff_ids)}",
            hint="the archive's manifest and the image's configuration must have the same layers",
        )


def _unpack(store: ImageStore, archive: _Archive, config: ImageConfig, blobs: list[str], progress: Report) -> list[int]:
    """Unpack the missing layers, several at a time; returns the bytes of files in each."""
    _check_count(config, len(blobs))
    diff_ids = config.rootfs.diff_ids
    check_depth(len(diff_ids))
    chains = digest.chain_ids(diff_ids)
    archive.lease.hold(*chains)
    known = {**store.layer_sizes(), **archive.sizes}

    def unpack(blob: str, diff_id: str, chain: str) -> int:
        short = diff_id[7:19]
        if chain in known and store.layers.exists(chain):
            _check_content(store, archive.streaming, blob, diff_id)
            return known[chain]
        total = store.content.size(blob)
        progress({"id": short, "status": "Loading layer", "progressDetail": {"current": 0, "total": total}})
        size = archive.streaming.give(blob, diff_id, chain)
        if size is None:
            size = unpack_blob(store, blob, diff_id, chain)
        progress({"id": short, "status": "Loading layer", "progressDetail": {"current": total, "total": total}})
        return size

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(unpack, blobs, diff_ids, chains))
    archive.sizes.update(zip(chains, sizes, strict=True))
    return sizes
