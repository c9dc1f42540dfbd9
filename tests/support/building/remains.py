"""What builds leave on an engine's disk: nothing half-made, and without images and cache nothing at all."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.engines import Engine

# What stays when everything is removed: the database, and what is known of the web and of git.
_KEPT = re.compile(r"(ketch\.db.*|events\.jsonl|settings\.json|content/.*\.json|builder/tmp(/(http|git|tmp)(/.*)?)?)\Z")
_PLACES = (
    "containers",
    "layers",
    "content/ingest",
    "builder/mounts",
    "builder/contexts",
    "builder/tmp",
    "builder/tmp/tmp",
)
_NAMES = re.compile(r"\.|build-|context-|.*\.new\Z")
_DEPTH = 3


def temporary(engine: Engine) -> list[str]:
    """What is under the names of unfinished work, and the directories of commands."""
    data, found = engine.data_root, []
    for place in _PLACES:
        found += [f"{place}/{name}" for name in _listed(os.path.join(data, place)) if _NAMES.match(name)]
    return found + [name for name in _listed(os.path.join(engine.exec_root, "run")) if name.startswith("build-")]


def notes(engine: Engine) -> list[str]:
    """What of the web and of git is half-written, which the next build removes."""
    root = os.path.join(engine.data_root, "builder", "tmp")
    return [name for place in ("http", "git") for name in _listed(os.path.join(root, place)) if ".new-" in name]


def on_disk(engine: Engine) -> set[str]:
    """The files under the data root, down to the names of layers and blobs."""
    root, found = engine.data_root, set()
    for directory, below, names in os.walk(root):
        place = os.path.relpath(directory, root)
        if place.count("/") >= _DEPTH:
            below.clear()
        found |= {os.path.normpath(os.path.join(place, name)) for name in (*names, *below)}
    return {path for path in found if not _KEPT.match(path)}


def until_nothing_is_half_made(engine: Engine) -> None:
    """Wait for removals in the background."""
    until(lambda: not temporary(engine), lambda: f"there is still {temporary(engine)}\n{engine.log()}")


def until_disk_is(engine: Engine, before: set[str]) -> None:
    """Wait until the files are those of before."""
    until(lambda: on_disk(engine) == before, lambda: f"others are {sorted(on_disk(engine) ^ before)}\n{engine.log()}")


def _listed(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(path)
    return []
