"""Copies of a file operation: which entries go where, by the rules of BuildKit's COPY and ADD."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from ketch.build.ops import modes
from ketch.build.ops.patterns import CopyPatterns
from ketch.build.ops.wildcards import matching
from ketch.errors import NotFound
from ketch.storage.drafts import unpack
from ketch.storage.drafts.stack import names, shown
from ketch.storage.drafts.tree_copy import CopyRules, TreeCopier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.llb import ops_pb2 as pb
    from ketch.storage.drafts.draft import Draft
    from ketch.storage.drafts.stack import LayerStack

KEEP = -1
_DIRECTORIES = 0o755  # the mode of those that are made on the way, and the most that a copy's own number gives them


def copy(
    draft: Draft,
    source: LayerStack,
    action: pb.FileActionCopy,
    owner: tuple[int, int] | None,
    check: Callable[[], None],
) -> None:
    """Carry out a copy (KetchError, OSError)."""
    copying = _Copying(draft, source, action, owner, check)
    copying.run()


class _Copying:
    def __init__(
        self,
        draft: Draft,
        source: LayerStack,
        action: pb.FileActionCopy,
        owner: tuple[int, int] | None,
        check: Callable[[], None],
    ) -> None:
        self._draft, self._source, self._action, self._owner, self._check = draft, source, action, owner, check
        self._time = None if action.timestamp == KEEP else action.timestamp
        self._made: list[Sequence[str]] = []  # directories on the way
        mode = None
        self._mode = _DIRECTORIES if action.modeStr or action.mode == KEEP else action.mode & _DIRECTORIES
        if action.modeStr:
            mode = modes.symbolic(action.modeStr)
        elif action.mode != KEEP:
            mode = modes.number(action.mode)
        chosen = CopyPatterns(action.include_patterns, action.exclude_patterns)
        rules = CopyRules(
            owner,
            mode,
            self._time,
            wanted=chosen.wanted if action.include_patterns or action.exclude_patterns else None,
            replace=action.alwaysReplaceExistingDestPaths,
        )
        self._copier = TreeCopier(draft, source, rules, check)

    def run(self) -> None:
        """Copy all that the source matches."""
        self._check_destination()
        for path in self._sources():
            if not (self._action.attemptUnpackDockerCompatibility and self._unpack(path)):
                self._copy(path)
        if self._time is not None:
            self._draft.set_times(self._made, self._time)

    def _check_destination(self) -> None:
        if self._action.createDestPath:
            return
        directory = self._draft.merged.resolve(self._action.dest)[:-1]
        if directory and self._draft.merged.find(directory) is None:
            raise NotFound(
                f"failed to stat {self._action.dest}: lstat {shown(directory)}: no such file or directory",
                hint="the directory is not made unless the copy says so",
            )

    def _sources(self) -> list[str]:
        path = posixpath.join("/", self._action.src)
        if not self._action.allowWildcard:
            return [path]
        found = matching(self._source, path, follow=self._action.followSymlink)
        if not found and not self._action.allowEmptyWildcard:
            raise NotFound(f"{self._action.src} not found")
        return found

    def _directory(self, path: Sequence[str], mode: int) -> None:
        self._made += self._draft.make_directories(path, mode, self._owner)

    def _unpack(self, path: str) -> bool:
        """Unpack an archive; False: it is none."""
        fd = self._source.open_file(self._source.resolve(path))
        if fd is None:
            return False
        try:
            if not unpack.is_archive(fd):
                return False
            target = self._draft.merged.resolve(self._action.dest)
            self._directory(target, _DIRECTORIES)
            unpack.unpack(self._draft, target, fd, self._owner, self._check)
            return True
        finally:
            os.close(fd)

    def _copy(self, path: str) -> None:
        merged, dest = self._draft.merged, posixpath.join("/", self._action.dest)
        if not dest.endswith(("/", "/.")):
            self._directory(merged.resolve(posixpath.dirname(dest)), self._mode)
        else:
            self._directory(merged.resolve(dest), self._mode)
        target = merged.resolve(dest)
        source = self._source.resolve(path, follow=self._action.followSymlink)
        status = self._source.find(source)
        if status is None and source:
            raise NotFound(f"lstat {shown(source)}: no such file or directory")
        is_directory = status is None or stat.S_ISDIR(status.st_mode)
        found = merged.find(target)
        exists = found is not None or not target
        contents = self._action.dirCopyContents and is_directory
        if exists and (not contents if is_directory else found is None or stat.S_ISDIR(found.st_mode)):
            target = [*target, *_base(path)]
        self._directory(target if contents and not exists else target[:-1], self._mode)
        self._copier.copy(source, target)


def _base(path: str) -> list[str]:
    """The last name of a path; none of the root, nor of one that ends with a dot."""
    return [] if path.endswith("/.") else names(path)[-1:]
