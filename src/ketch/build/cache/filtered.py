"""Digests of what wildcards and patterns select of a tree, equal to BuildKit's (cache/contenthash).

The digest is of the base names and digests of all selected entries, one by one: of directories without what is in
them.  A directory that is not selected counts when something below it is.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from ketch import trees
from ketch.build.cache import globs
from ketch.dockerignore import IgnoreRules
from ketch.errors import NotFound
from ketch.notation import gopaths
from ketch.storage.tree_digests import NOTHING, Digest, DigestSequence, is_whiteout, names, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.selections import Selection
    from ketch.storage.tree_digests import TreeDigests


def cleaned(path: str) -> str:
    """A path from the root, without ``.`` and ``..`` and without a slash at its end."""
    found = posixpath.normpath(f"/{path}")
    return found[1:] if found.startswith("//") else found


def of_path(files: TreeDigests, path: str, *, follow: bool) -> str:
    """The digest of one path with everything below it (NotFound)."""
    fd = files.open(path, follow=follow)
    if fd is None:
        raise NotFound(f'"{path}": not found')
    try:
        return files.whole(fd, path)
    finally:
        os.close(fd)


def digest(files: TreeDigests, path: str, selection: Selection) -> str:
    """The digest of what is selected at a path, or by the pattern that it is (NotFound, InvalidArgument)."""
    return _Filter(files, path, selection).run()


class _Matches(NamedTuple):
    """Which patterns match a path, as it is asked by what is below it; empty: nothing is known."""

    include: Sequence[bool] = ()
    exclude: Sequence[bool] = ()


class _Above(NamedTuple):
    """A directory on the way, which counts when something below it does."""

    path: str
    header: str
    matches: _Matches


class _Filter:
    """A walk over a part of a tree in the order of BuildKit's index."""

    def __init__(self, files: TreeDigests, path: str, selection: Selection) -> None:
        self._files = files
        self._path = path
        self._follow = selection.follow
        self._include = IgnoreRules(selection.include) if selection.include else None
        self._exclude = IgnoreRules(selection.exclude) if selection.exclude else None
        self._glob = globs.compiled(path) if selection.wildcard else None
        self._matched = "" if selection.wildcard else path.rstrip("/")  # what patterns are relative to
        self._above: list[_Above] = []  # on the way to the present directory
        self._counted = 0  # of those, how many are in the result
        self._sequence = DigestSequence()
        self._number = 0
        self._first: tuple[str, Digest] = ("", NOTHING)

    def run(self) -> str:
        start = self._path
        if self._glob is not None:
            start = _before_wildcards(start)
        fd = self._files.open(start, follow=self._glob is not None)
        if fd is not None:
            try:
                self._walk(fd, start.rstrip("/"))
            finally:
                os.close(fd)
        path, found = self._first
        if self._number == 1 and posixpath.basename(path) == posixpath.basename(self._path):
            return now(found)
        return self._sequence.digest()

    def _walk(self, fd: int, prefix: str) -> None:
        """Walk over what is at ``prefix``, and open."""
        status = os.fstat(fd)
        if not stat.S_ISDIR(status.st_mode):
            self._entry(fd, "", prefix, status)
            return
        kept = [self._directory(fd, prefix)]
        with trees.Descent(fd) as at:
            for name in at.walk(names):
                if name is None:
                    if kept.pop():
                        self._above.pop()
                        self._counted = min(self._counted, len(self._above))
                    continue
                path = f"{prefix}/{at.prefix}{name}"
                status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if self._is_worth_entering(path):
                        at.enter(name)
                        kept.append(self._directory(at.fd, path))
                elif not is_whiteout(status):
                    self._entry(at.fd, name, path, status)

    def _is_worth_entering(self, path: str) -> bool:
        """Whether a directory, or anything below it, may be selected."""
        if not self._is_matched(path):
            return self._may_match_below(path)
        relative = self._relative(path)
        if self._exclude is None or not relative:
            return True
        excluded, _ = self._exclude.below(self._parent().exclude, relative)
        return not excluded or self._exclude.may_keep_below(relative)

    def _may_match_below(self, path: str) -> bool:
        """Whether wildcards may match something below a directory that they do not match."""
        if "[" in self._path or "\\" in self._path:
            return True  # a class of characters may contain a slash
        depth = path.count("/") + 1
        parts = self._path.split("/")
        return depth < len(parts) and globs.compiled("/".join(parts[:depth])).match(path) is not None

    def _directory(self, fd: int, path: str) -> bool:
        """Take in a directory; whether it counts when something below it does."""
        if not path or not self._is_matched(path):  # of the whole tree the root itself does not count
            return False
        selected, matches = self._selected(path)
        self._above.append(_Above(path, self._files.header(fd), matches))
        if selected:
            self._count_above()
        return True

    def _entry(self, directory_fd: int, name: str, path: str, status: os.stat_result) -> None:
        """Take in what is no directory."""
        if not self._is_matched(path) or not self._selected(path)[0]:
            return
        self._count_above()
        if self._follow and not self._above and stat.S_ISLNK(status.st_mode):
            self._add(path, of_path(self._files, path, follow=True))
        else:
            self._add(path, self._files.file(directory_fd, name, status))

    def _is_matched(self, path: str) -> bool:
        """Whether a path is below what the wildcards matched, or matched by them itself."""
        if self._glob is None or (self._matched and path.startswith(f"{self._matched}/")):
            return True
        if self._glob.match(path) is None:
            return False
        self._matched = path
        return True

    def _selected(self, path: str) -> tuple[bool, _Matches]:
        """Whether the patterns select a path, and which of them match."""
        parent, relative = self._parent(), self._relative(path)
        include: Sequence[bool] = ()
        if self._include is not None:
            matches, include = self._include.below(parent.include, relative)
            if not matches:
                return False, _Matches(include)
        if self._exclude is None:
            return True, _Matches(include)
        matches, exclude = self._exclude.below(parent.exclude, relative)
        return not matches, _Matches(include, exclude)

    def _parent(self) -> _Matches:
        return self._above[-1].matches if self._above else _Matches()

    def _relative(self, path: str) -> str:
        return f"{path}/".removeprefix(f"{self._matched}/").removesuffix("/")

    def _count_above(self) -> None:
        for one in self._above[self._counted :]:
            self._add(one.path, one.header)
        self._counted = len(self._above)

    def _add(self, path: str, found: Digest) -> None:
        if not self._number:
            self._first = (path, found)
        separator = b"\0" if self._number else b""
        self._sequence.add(separator + os.fsencode(posixpath.basename(path)), found)
        self._number += 1


def _before_wildcards(path: str) -> str:
    """The directory down to which a pattern has no wildcards."""
    parts = path.split("/")
    plain = next(at for at, part in enumerate(parts) if gopaths.has_wildcards(part))
    return "/".join(parts[:plain]) or "/"
