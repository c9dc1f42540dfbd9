"""The files of an image as its layers make them, out of the archive that ``docker save`` writes."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from tests.support.recordings import build_files

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


def entries(archive: bytes) -> list[list[Any]]:
    """Each file as `build_files.entries` describes it; names of one file are not told from copies of it."""
    found: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as saved:

        def data(name: str) -> bytes:
            file = saved.extractfile(name)
            assert file
            return file.read()

        for layer in json.loads(data("manifest.json"))[0]["Layers"]:
            _apply(found, data(layer))
    return [found[path] for path in sorted(found)]


def _apply(found: dict[str, list[Any]], layer: bytes) -> None:
    """Put one layer over what is there."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        names = [one.name.strip("/").removeprefix("./") for one in archive]
    for name in names:
        directory, _, last = name.rpartition("/")
        if last == _OPAQUE:
            _remove_below(found, directory)
        elif last.startswith(_WHITEOUT):
            gone = f"{directory}/{last.removeprefix(_WHITEOUT)}".lstrip("/")
            _remove_below(found, gone)
            found.pop(gone, None)
    rows = {row[0].removeprefix("./"): row for row in build_files.entries(layer)}
    for path, row in rows.items():
        if path.rpartition("/")[2].startswith(_WHITEOUT) or path in ("", "."):
            continue
        if row[1] == "hard":
            row = [path, *rows[row[2].removeprefix("./")][1:]]
        if row[1] != "dir":
            _remove_below(found, path)
        found[path] = [path, *row[1:]]


def _remove_below(found: dict[str, list[Any]], directory: str) -> None:
    prefix = f"{directory}/" if directory else ""
    for path in [path for path in found if path.startswith(prefix)]:
        del found[path]
