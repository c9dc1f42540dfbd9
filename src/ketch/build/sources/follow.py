"""Paths of a directory with the links on their way: what must be there so that each path leads somewhere."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.dockerignore import IgnoreRules
from ketch.errors import InvalidArgument
from ketch.storage.contexts.lookup import link_target, names_in

if TYPE_CHECKING:
    from collections.abc import Sequence


def follow(root_fd: int, paths: Sequence[str]) -> list[str] | None:
    """The paths, those of links on their way, and where these lead, in order and without what is below another.

    A path that leads out of the directory is taken as one from its top.  None: the whole directory is among them.
    """
    found: set[str] = set()
    waiting = list(reversed(paths))
    while waiting:
        waiting += reversed(_step(root_fd, waiting.pop(), found))
    result: list[str] = []
    for path in sorted(found):
        if path == ".":
            return None
        if not result or not path.startswith(f"{result[-1]}/"):
            result.append(path)
    return result


def _step(root_fd: int, path: str, found: set[str]) -> list[str]:
    """Go along one path to its first link; returns the paths on which it goes on behind it."""
    current, rest = ".", path
    while True:
        first, _, rest = rest.partition("/")
        current = posixpath.normpath(posixpath.join(current, first))
        targets = _targets(root_fd, current)
        if rest and not targets:
            continue
        if current in found:
            return []
        found.add(current)
        return [posixpath.normpath(posixpath.join(target, rest)) for target in targets]


def _targets(root_fd: int, path: str) -> list[str]:
    """The targets of the links that a path means, which may have wildcards in its last part."""
    directory, name = posixpath.split(path)
    if not _has_wildcards(name):
        target = link_target(root_fd, path)
        return [] if target is None else [posixpath.normpath(posixpath.join("/", directory, target))]
    try:
        rules = IgnoreRules([f"[!]{name[1:]}" if name.startswith("!") else name])
    except InvalidArgument:
        return []
    matching = (one for one in names_in(root_fd, directory) if rules.ignored(one))
    found = (link_target(root_fd, posixpath.join(directory, one)) for one in matching)
    return [posixpath.normpath(posixpath.join("/", directory, target)) for target in found if target is not None]


def _has_wildcards(name: str) -> bool:
    escaped = False
    for char in name:
        if not escaped and char in "*?[":
            return True
        escaped = char == "\\" and not escaped
    return False
