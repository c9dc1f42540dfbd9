"""The search for packages in a tree of files: what package managers recorded of those that they installed.

Nothing in the tree is run, and no link is followed; what cannot be read is left out.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch.build.attest.sbom import apk, dpkg, node, packages, python
from ketch.trees import Descent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.build.attest.sbom.packages import OsRelease, Package

_LARGEST = 64 << 20  # bytes of a package manager's database
_LARGEST_FILE = 1 << 20  # of the metadata of one package
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_NOT_ENTERED = frozenset(("dev", "proc", "sys"))  # at the top


def scan(root_fd: int, check: Callable[[], None] = lambda: None) -> list[Package]:
    """The packages of an open tree.  Blocking; ``check`` is called for each directory, and what it raises ends it."""
    system = _system(root_fd)
    found: list[Package] = []
    with Descent(root_fd) as at:
        files: list[str] = []

        def look(fd: int) -> list[str]:
            check()
            directories = _entries(fd, files)
            for name in files:
                found.extend(_packages(fd, at.prefix, name, system))
            files.clear()
            return sorted(directories)

        for name in at.walk(look):
            if name is not None and (at.depth or name not in _NOT_ENTERED):
                at.enter(name)
    return found


def _entries(fd: int, files: list[str]) -> list[str]:
    """The names of directories; those of files go to ``files``."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.name)
    return directories


def _system(root_fd: int) -> OsRelease:
    """The system that the tree is of."""
    for path in _RELEASES:
        text = _beneath(root_fd, path)
        if text is not None:
            return packages.os_release(text)
    return packages.OsRelease()


def _beneath(root_fd: int, path: str) -> str | None:
    """A file at a path of plain directories; None: there is none."""
    directory, name = os.path.split(path)
    with Descent(root_fd) as at:
        try:
            for part in directory.split("/"):
                at.enter(part)
        except OSError:
            return None
        return _read(at.fd, name, _LARGEST_FILE)


def _packages(fd: int, prefix: str, name: str, system: OsRelease) -> Iterable[Package]:
    """The packages that a file in the directory at ``prefix`` (with a slash at its end) tells of."""
    path = _shown(prefix + name)
    if path == dpkg.STATUS or (prefix == dpkg.PARTS and not name.endswith(".md5sums")):
        return dpkg.read(_read(fd, name, _LARGEST) or "", path, system)
    if path in apk.DATABASES:
        return apk.read(_read(fd, name, _LARGEST) or "", path, system)
    one = None
    if python.is_metadata(prefix[:-1], name):
        one = python.read(_read(fd, name, _LARGEST_FILE) or "", path)
    elif node.is_metadata(path):
        one = node.read(_read(fd, name, _LARGEST_FILE) or "", path)
    return () if one is None else (one,)


def _shown(path: str) -> str:
    """A path as JSON can have it, whatever bytes it is of."""
    return os.fsencode(path).decode("utf-8", "replace")


def _read(fd: int, name: str, largest: int) -> str | None:
    """A regular file as text; None for one that is none, is larger, or cannot be read."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return None
    with open(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            return None
        return opened.read(largest).decode("utf-8", "replace")
