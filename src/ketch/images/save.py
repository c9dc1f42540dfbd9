"""``save``: one archive that is an OCI image-layout and a ``docker save`` archive at once."""

from __future__ import annotations

import io
import tarfile
from typing import IO, TYPE_CHECKING, Any

import msgspec

from ketch.errors import InvalidArgument
from ketch.oci import digest, reference
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.images.model import Image
    from ketch.images.store import ImageStore

_BUFFER = 1 << 18


def save(store: ImageStore, refs: Sequence[str], target: IO[bytes]) -> None:
    """Write the images that ``refs`` name.

    A name with a tag saves that name, one without all names of the repository; an id saves the content unnamed.
    """
    with store.lease() as lease:
        chosen: dict[str, tuple[Image, list[str]]] = {}
        for ref in refs:
            for image, name in _named(store, ref):
                names = chosen.setdefault(image.id, (image, []))[1]
                if name and name not in names:
                    names.append(name)
        for image, _ in chosen.values():
            lease.hold(*image.parts())
            store.resolve(image.id)  # it may have gone before it was held (NotFound)
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as tar:
            _write(store, tar, list(chosen.values()))


def _write(store: ImageStore, tar: tarfile.TarFile, chosen: list[tuple[Image, list[str]]]) -> None:
    _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    written: set[str] = set()
    for image, _ in chosen:
        for blob in (image.id, *image.blobs, image.manifest):
            if blob not in written:
                written.add(blob)
                _add_blob(store, tar, blob)
    _add(tar, "index.json", oci.encode(_index(store, chosen)))
    _add(tar, "manifest.json", msgspec.json.encode([_docker_entry(i, names) for i, names in chosen]))


def _named(store: ImageStore, ref: str) -> list[tuple[Image, str]]:
    """The images that a reference means, each with the name to save it under ("" for an id)."""
    try:
        parsed = reference.parse(ref)
    except InvalidArgument:
        parsed = None
    if parsed is not None and not parsed.digest and ref in (parsed.repository, parsed.familiar_repository):
        names = store.names_in(parsed.repository)
        if names:
            return [(store.resolve(name), reference.parse(name).familiar) for name in names]
    image = store.resolve(ref)
    return [(image, parsed.familiar if parsed is not None and parsed.familiar in image.repo_tags else "")]


def _index(store: ImageStore, chosen: list[tuple[Image, list[str]]]) -> oci.Index:
    entries = []
    for image, names in chosen:
        for name in names or [""]:
            full = str(reference.parse(name)) if name else ""
            annotations = (
                {"io.containerd.image.name": full, "org.opencontainers.image.ref.name": full} if name else None
            )
            entries.append(
                oci.Descriptor(
                    media_type=oci.MANIFEST, digest=image.manifest, size=store.content.size(image.manifest),
                    annotations=annotations, platform=image.platform,
                )
            )  # fmt: skip
    return oci.Index(manifests=entries, media_type=oci.INDEX)


def _docker_entry(image: Image, names: list[str]) -> dict[str, Any]:
    return {
        "Config": _path(image.id),
        "RepoTags": names or None,
        "Layers": [_path(blob) for blob in image.blobs],
    }


def _path(blob: str) -> str:
    return f"blobs/sha256/{digest.hexadecimal(blob)}"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(data))


def _add_blob(store: ImageStore, tar: tarfile.TarFile, blob: str) -> None:
    info = tarfile.TarInfo(_path(blob))
    info.size = store.content.size(blob)
    info.mode = 0o644
    with store.content.open(blob) as f:
        tar.addfile(info, f)
