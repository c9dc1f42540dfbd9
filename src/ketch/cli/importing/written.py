"""The files that a container wrote into its root, as a layer upon its image.

Docker tells which paths differ from the image, and exports all files: those that differ are picked out of the export,
and a path that is gone becomes a whiteout. The image upon which the layer lies is taken from Ketch, as an archive that
gets one layer more.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple

from ketch.cli.importing.streams import archive_of
from ketch.errors import DataLoss, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedRandom

    from ketch.notation.api_objects import ApiObject

_DELETED = 2  # the kind of a change
_REPLACED = "\ufffd"
_CHUNK = 1 << 18
_LARGEST_JSON = 1 << 20
_OURS = ("manifest.json", "index.json", "oci-layout", "repositories")
_STOP = "stop the container, and try again"
_END = bytes(2 * tarfile.BLOCKSIZE)


class WrittenLayer(NamedTuple):
    """A layer in a temporary file, of which nothing has been read."""

    file: IO[bytes]
    size: int
    digest: str


@contextmanager
def layer(changes: list[ApiObject], export: Callable[[], Iterator[bytes]]) -> Iterator[WrittenLayer]:
    """The layer of the paths that changed (``GET /containers/ID/changes``), out of a container's export.

    It is there until the end. The export is read once more when a new name was given to a file that did not change:
    the layer needs that one, too. Raises DataLoss for an export that breaks off or changes, or a removal that cannot be
    repeated; ResourceExhausted.
    """
    with _temporary() as file:
        with _written():
            _write(changes, export, file)
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield WrittenLayer(file, size, digest)


def _temporary() -> BufferedRandom:
    with _written():
        return tempfile.TemporaryFile()


@contextmanager
def _written() -> Iterator[None]:
    """Have what hinders the writing of a temporary file raise ResourceExhausted."""
    try:
        yield
    except OSError as e:
        hint = f"free some space in {tempfile.gettempdir()}, or name another directory with TMPDIR"
        raise ResourceExhausted(f"write what the container wrote to a temporary file: {e.strerror}", hint=hint) from e


def _write(changes: list[ApiObject], export: Callable[[], Iterator[bytes]], file: IO[bytes]) -> None:
    changed = {change["Path"].strip("/") for change in changes if change["Kind"] != _DELETED}
    missing = _pick(changed, export(), file)
    if missing:
        missing = _pick(changed | missing, export(), file)
    if missing:
        raise DataLoss(f"read the container's files: {', '.join(sorted(missing))} came or went meanwhile", hint=_STOP)
    for change in changes:
        if change["Kind"] == _DELETED:
            file.write(_header(tarfile.TarInfo(_whiteout(change["Path"]))))
    file.write(_END)
    file.flush()


def _pick(changed: set[str], exported: Iterator[bytes], file: IO[bytes]) -> set[str]:
    """Write the files that changed; returns the first names of hard links that are not among them."""
    taken: set[str] = set()
    missing: set[str] = set()
    file.seek(0)
    file.truncate()
    with archive_of(exported, "the container's files") as archive:
        for member in archive:
            name = _told(member.name)
            if name not in changed:
                continue
            if member.islnk() and _told(member.linkname) not in taken:
                missing.add(_told(member.linkname))
                continue
            taken.add(name)
            for data in _member(archive, member):
                file.write(data)
    return missing


def _told(name: str) -> str:
    """A name as Docker tells it: bytes that are no UTF-8 are one and the same character."""
    plain = name.removeprefix("./").strip("/")
    return "".join(_REPLACED if "\udc80" <= letter <= "\udcff" else letter for letter in plain)


def _whiteout(path: str) -> str:
    if _REPLACED in path:
        raise DataLoss(f"`{path}` was removed from the image's files, and Docker does not tell its exact name")
    directory, name = posixpath.split(path.strip("/"))
    return posixpath.join(directory, f".wh.{name}")


def image_with(saved: Iterator[bytes], layer: WrittenLayer, made: ApiObject) -> Iterator[bytes]:
    """An archive of one image with a layer more; ``made`` is that one's entry in the image's history.

    ``saved`` is an archive of the image alone, as Ketch writes it (DataLoss: it is another).
    """
    documents: dict[str, bytes] = {}
    with archive_of(saved, "the image's archive") as archive:
        for member in archive:
            if member.isfile() and member.size <= _LARGEST_JSON:
                content = archive.extractfile(member)
                data = content.read() if content else b""
                if data[:1] in (b"{", b"["):
                    documents[member.name] = data
                if member.name not in _OURS:
                    yield _document(member.name, data)
            elif member.isfile():
                yield from _member(archive, member)
    try:
        manifest = json.loads(documents["manifest.json"])[0]
        config = json.loads(documents[manifest["Config"]])
        layers = [*(manifest["Layers"] or []), _name(layer)]
        config["rootfs"]["diff_ids"] = [*(config["rootfs"].get("diff_ids") or []), f"sha256:{layer.digest}"]
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise DataLoss(f"read the image's archive: {e!r}") from e
    config["history"] = [*(config.get("history") or []), made]
    config["created"] = made["created"]
    data = json.dumps(config).encode()
    name = f"{hashlib.sha256(data).hexdigest()}.json"
    yield _document(name, data)
    yield from _layer(layer)
    yield _document("manifest.json", json.dumps([{"Config": name, "RepoTags": None, "Layers": layers}]).encode())
    yield _END


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """An entry as it is, with its content."""
    yield _header(member)
    content = archive.extractfile(member) if member.isreg() else None
    if content is not None:
        while data := content.read(_CHUNK):
            yield data
        yield bytes(-member.size % tarfile.BLOCKSIZE)


def _document(name: str, data: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return _header(header) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _name(layer: WrittenLayer) -> str:
    return f"{layer.digest}/layer.tar"


def _layer(layer: WrittenLayer) -> Iterator[bytes]:
    header = tarfile.TarInfo(_name(layer))
    header.size = layer.size
    yield _header(header)
    while data := layer.file.read(_CHUNK):
        yield data
    yield bytes(-layer.size % tarfile.BLOCKSIZE)
