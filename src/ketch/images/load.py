"""``load``: archives of ``docker save`` and OCI image-layouts, plain or compressed, with one image or several.

Every file of the archive goes to the content store first (so nothing is read twice, and digests in names
are checked); then ``manifest.json`` or ``index.json`` says what they are.  What no image uses is deleted again.
"""

from __future__ import annotations

import posixpath
import tarfile
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.errors import DataLoss, InvalidArgument
from ketch.images.importer import architecture, finish, make_image
from ketch.images.unpack import unpack_blob
from ketch.oci import digest, reference
from ketch.oci import manifest as oci
from ketch.oci.config import ImageConfig
from ketch.storage.archive import compression
from ketch.storage.archive.extract import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.model import Image
    from ketch.images.store import ImageStore

    Progress = Callable[[dict[str, Any]], None]

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_LINKS = 10


class _DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """One image in ``manifest.json`` of ``docker save``."""

    config: str
    layers: list[str] = msgspec.field(default_factory=list)
    repo_tags: list[str] | None = None


def load(store: ImageStore, source: IO[bytes], progress: Progress) -> list[Image]:
    """Read an archive; returns its images. InvalidArgument when it is none; then nothing of it stays."""
    with store.lock:
        archive = _Archive(store)
        try:
            archive.read(source)
            if "manifest.json" in archive.files:
                loaded = _load_docker(store, archive, progress)
            elif "index.json" in archive.files:
                loaded = _load_layout(store, archive, progress)
            else:
                raise InvalidArgument(
                    "load: the archive has neither manifest.json nor index.json",
                    hint="use `import` for the tar of a root filesystem",
                )
        finally:
            store.forget_unused(archive.new)
    return loaded


class _Archive:
    """The files of an archive by name, as blobs."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.files: dict[str, str] = {}
        self.new: list[str] = []
        self._links: dict[str, str] = {}

    def read(self, source: IO[bytes]) -> None:
        try:
            with (
                compression.reader(source, "archive") as plain,
                tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as tar,
            ):
                for member in tar:
                    self._member(tar, member)
                    tar.members = []  # type: ignore[attr-defined]
        except tarfile.TarError as e:
            raise InvalidArgument(f"load: {e}", hint="it is not a tar archive, or it is cut short") from e

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = clean(member.name)
        if member.isreg():
            content = tar.extractfile(member)
            assert content is not None
            expected = None
            if name.startswith("blobs/sha256/"):
                expected = digest.check("sha256:" + name.removeprefix("blobs/sha256/"))
            known = expected is not None and self._store.content.exists(expected)
            blob, size = self._store.content.copy_in(content, expected)
            if size != member.size:
                raise InvalidArgument(f"load: the archive ends in the middle of `{name}`")
            self.files[name] = blob
            if not known:
                self.new.append(blob)
        elif member.issym():
            self._links[name] = clean(
                posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname)), "link"
            )
        elif member.islnk():
            self._links[name] = clean(member.linkname, "hard link")
        elif not member.isdir():
            raise InvalidArgument(f"load: `{member.name}` is neither a file nor a directory")

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

    def json(self, blob: str, kind: Any, what: str) -> Any:
        """A blob decoded (InvalidArgument with its name)."""
        try:
            return msgspec.json.decode(self._store.content.read(blob), type=kind)
        except (msgspec.DecodeError, DataLoss) as e:
            raise InvalidArgument(f"load: {what}: {e}") from e


def _load_docker(store: ImageStore, archive: _Archive, progress: Progress) -> list[Image]:
    entries = archive.json(archive.blob("manifest.json"), list[_DockerEntry], "manifest.json")
    loaded = []
    manifests = _manifests_by_config(archive)
    for entry in entries:
        config_blob = archive.blob(entry.config)
        config = _config(archive, config_blob)
        blobs = [archive.blob(layer) for layer in entry.layers]
        names = [str(reference.parse(tag)) for tag in entry.repo_tags or ()]
        sizes = _unpack(store, config, blobs, progress)
        found = manifests.get(config_blob)
        if found is not None and [d.digest for d in found[1].layers] == blobs:
            image = make_image(config_blob, found[0], config, blobs, sizes)
        else:
            image = _own_manifest(store, config_blob, config, blobs, sizes)
        loaded.append(_add(store, image, names, progress))
    return loaded


def _own_manifest(
    store: ImageStore, config_blob: str, config: ImageConfig, blobs: list[str], sizes: list[int]
) -> Image:
    """An image whose archive came without a manifest: write one that keeps the configuration as it is."""
    image = finish(store, config, blobs, sizes)
    if image.id == config_blob:
        return image
    raw = store.content.read(image.manifest)
    manifest = msgspec.json.decode(raw, type=oci.Manifest)
    manifest.config = oci.Descriptor(media_type=oci.CONFIG, digest=config_blob, size=store.content.size(config_blob))
    kept = make_image(config_blob, store.content.put(oci.encode(manifest)), config, blobs, sizes)
    store.forget_unused([image.id, image.manifest])
    return kept


def _manifests_by_config(archive: _Archive) -> dict[str, tuple[str, oci.Manifest]]:
    """The OCI manifests that newer ``docker save`` archives carry beside ``manifest.json``."""
    result: dict[str, tuple[str, oci.Manifest]] = {}
    if "index.json" in archive.files:
        for descriptor in _flatten(archive, archive.files["index.json"], depth=0):
            if descriptor.digest in archive.files.values():
                manifest = archive.json(descriptor.digest, oci.Manifest, descriptor.digest)
                result[manifest.config.digest] = (descriptor.digest, manifest)
    return result


def _load_layout(store: ImageStore, archive: _Archive, progress: Progress) -> list[Image]:
    loaded = []
    for descriptor in _flatten(archive, archive.files["index.json"], depth=0):
        if not _fits(descriptor):
            continue
        path = f"blobs/sha256/{digest.hexadecimal(descriptor.digest)}"
        manifest = archive.json(archive.blob(path), oci.Manifest, path)
        config_blob = archive.blob(f"blobs/sha256/{digest.hexadecimal(manifest.config.digest)}")
        config = _config(archive, config_blob)
        blobs = [archive.blob(f"blobs/sha256/{digest.hexadecimal(d.digest)}") for d in manifest.layers]
        sizes = _unpack(store, config, blobs, progress)
        image = make_image(config_blob, descriptor.digest, config, blobs, sizes)
        loaded.append(_add(store, image, _names(descriptor), progress))
    if not loaded:
        raise InvalidArgument(f"load: the archive has no image for linux/{architecture()}")
    return loaded


def _flatten(archive: _Archive, blob: str, depth: int) -> list[oci.Descriptor]:
    """The manifests of an index, nested indexes included; names are inherited from outside."""
    if depth > 3:
        raise InvalidArgument("load: indexes are nested too deeply")
    index = archive.json(blob, oci.Index, "index.json")
    result: list[oci.Descriptor] = []
    for descriptor in index.manifests:
        if descriptor.media_type not in oci.INDEXES:
            result.append(descriptor)
            continue
        for inner in _flatten(archive, digest.check(descriptor.digest), depth + 1):
            inner.annotations = {**(descriptor.annotations or {}), **(inner.annotations or {})}
            result.append(inner)
    return result


def _fits(descriptor: oci.Descriptor) -> bool:
    platform = descriptor.platform
    return platform is None or (platform.os == "linux" and platform.architecture == architecture())


def _names(descriptor: oci.Descriptor) -> list[str]:
    for key in _NAMES:
        name = (descriptor.annotations or {}).get(key)
        if name and ("/" in name or ":" in name):  # a bare "latest" says no repository
            return [str(reference.parse(name))]
    return []


def _config(archive: _Archive, blob: str) -> ImageConfig:
    config: ImageConfig = archive.json(blob, ImageConfig, "image configuration")
    for diff_id in config.rootfs.diff_ids:
        digest.check(diff_id)
    return config


def _unpack(store: ImageStore, config: ImageConfig, blobs: list[str], progress: Progress) -> list[int]:
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(blobs):
        raise InvalidArgument(f"load: the image has {len(diff_ids)} layers, its manifest {len(blobs)}")
    known = {c: s for i in store.list() for c, s in zip(i.chain_ids, i.layer_sizes, strict=True)}
    fresh: list[str] = []
    sizes = []
    try:
        for blob, diff_id, chain in zip(blobs, diff_ids, digest.chain_ids(diff_ids), strict=True):
            short = diff_id[7:19]
            if chain in known and store.layers.exists(chain):
                progress({"id": short, "status": "Layer already exists"})
                sizes.append(known[chain])
                continue
            total = store.content.size(blob)
            progress({"id": short, "status": "Loading layer", "progressDetail": {"current": 0, "total": total}})
            store.layers.remove(chain)  # one that no image knows is what a crash left
            sizes.append(unpack_blob(store, blob, diff_id, chain))
            fresh.append(chain)
            progress({"id": short, "status": "Loading layer", "progressDetail": {"current": total, "total": total}})
    except BaseException:
        for chain in reversed(fresh):
            store.layers.remove(chain)
        raise
    return sizes


def _add(store: ImageStore, image: Image, names: list[str], progress: Progress) -> Image:
    image = store.add(image, names)
    for name in names:
        progress({"stream": f"Loaded image: {reference.parse(name).familiar}\n"})
    if not names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})
    return image
