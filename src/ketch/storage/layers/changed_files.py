"""Differences between the files of two layers, for people: which are new, changed, gone."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch.trees import DIRECTORY, Descent

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 10  # that are told
_MOST_FILES = 100_000  # that are looked at
_PART = 1 << 20


def changed_files(old: str, new: str) -> list[str]:
    """Lines on what differs between the directories of two layers (OSError), the first ten of it.

    Kind, mode, owner, target and bytes count, times do not.
    """
    before, after = _entries(old), _entries(new)
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            lines.append(f"new: {path}")
        elif path not in after:
            lines.append(f"gone: {path}")
        elif _differ(old, new, path, before[path], after[path]):
            lines.append(f"changed: {path}")
    more = len(lines) - _MOST
    return [*lines[:_MOST], *([f"and {more} more"] if more > 0 else [])]


def _entries(root: str) -> dict[str, os.stat_result]:
    fd = os.open(root, DIRECTORY)
    try:
        return dict(_walked(fd))
    finally:
        os.close(fd)


def _walked(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    with Descent(fd) as here:
        for count, name in enumerate(here.walk()):
            if name is None:
                continue
            if count > _MOST_FILES:
                return
            status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
            yield here.prefix + name, status
            if stat.S_ISDIR(status.st_mode):
                here.enter(name)


def _differ(old: str, new: str, path: str, before: os.stat_result, after: os.stat_result) -> bool:
    if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino):
        return False
    if (before.st_mode, before.st_uid, before.st_gid) != (after.st_mode, after.st_uid, after.st_gid):
        return True
    one, other = os.path.join(old, path), os.path.join(new, path)
    if stat.S_ISLNK(after.st_mode):
        return os.readlink(one) != os.readlink(other)
    if stat.S_ISREG(after.st_mode):
        return before.st_size != after.st_size or not _same_bytes(one, other)
    return False


def _same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            part = first.read(_PART)
            if part != second.read(_PART):
                return False
            if not part:
                return True
