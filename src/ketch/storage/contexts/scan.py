"""A scan of a directory that its owner may be changing: what there is, and by what a change shows later.

The tree is walked by descriptor and no symbolic link is followed.  Entries come parents first, and of a directory its
files before its directories, so that whoever reads them again opens each directory once.
"""

from __future__ import annotations

import os
import stat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch import trees
from ketch.errors import Conflict, InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    Choose = Callable[[Any, str, bool], tuple[bool, Any]]
    """(state of the directory above, path, is a directory) → whether it is wanted, and the state for what is in it.

    A state of None: nothing in it can be wanted.  That of the first directory is ``()``.
    """

_NAME = attrgetter("name")
_NEW = tuple.__new__
_LONGEST = 4095  # bytes of a path that the kernel takes; BuildKit's clients cannot send longer ones either


class ScanEntry(NamedTuple):
    """A file, directory or link that was found; two that are equal have the same content, mode and attributes."""

    path: str
    mode: int
    size: int  # of directories 0
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def entry(path: str, status: os.stat_result) -> ScanEntry:
    """An entry of what stat(2) says."""
    mode = status.st_mode
    size = 0 if stat.S_ISDIR(mode) else status.st_size
    return ScanEntry(path, mode, size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def changed(path: str) -> Conflict:
    """The error of what changes while it is read."""
    return Conflict(
        f"`{path}` in the build context changed while it was read",
        hint="build again when nothing writes there, or name it in .dockerignore",
    )


def _file(path: str, status: os.stat_result) -> ScanEntry:
    """An entry of a file, of which there are many: as `entry`, but sooner (Conflict: it is a directory by now)."""
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise changed(path)
    times = status.st_mtime_ns, status.st_ctime_ns
    return _NEW(ScanEntry, (path, mode, status.st_size, *times, status.st_ino, status.st_dev))


def scan(root_fd: int, choose: Choose | None = None, check: Callable[[], None] = lambda: None) -> list[ScanEntry]:
    """The entries below a directory that are wanted (all, without ``choose``), and the directories above them.

    ``check`` is called now and then; what it raises ends the scan.  Conflict, InvalidArgument,
    PermissionDenied.
    """
    own_fd = os.open(".", trees.DIRECTORY, dir_fd=root_fd)  # others may be reading from the same descriptor
    try:
        return _Scan(choose, check).run(own_fd)
    finally:
        os.close(own_fd)


class _Scan:
    def __init__(self, choose: Choose | None, check: Callable[[], None]) -> None:
        self._choose, self._check = choose, check
        self._found: list[ScanEntry] = []
        self._way: list[ScanEntry] = []  # the directories from the first to this one
        self._told = 0  # how many of them are among the entries found

    def run(self, root_fd: int) -> list[ScanEntry]:
        with trees.Descent(root_fd) as at:
            pending = [self._read(at, "", ())]
            while pending:
                if pending[-1]:
                    name, wanted, state = pending[-1].pop()
                    self._enter(at, name)
                    if wanted:
                        self._tell()
                    pending.append(self._read(at, f"{self._way[-1].path}/", state))
                    continue
                pending.pop()
                if pending:
                    self._leave(at)
        return self._found

    def _read(self, at: trees.Descent, prefix: str, state: Any) -> list[tuple[str, bool, Any]]:
        """Tell the files of the present directory; returns the directories in it that are to be entered, last first."""
        self._check()
        below: list[tuple[str, bool, Any]] = []
        files: list[ScanEntry] = []
        with os.scandir(at.fd) as listing:
            found = sorted(listing, key=_NAME)
        choose = self._choose
        wanted, inner = True, ()
        for one in found:
            path = prefix + one.name
            is_directory = one.is_dir(follow_symlinks=False)
            if choose is not None:
                wanted, inner = choose(state, path, is_directory)
            if is_directory:
                if inner is not None:
                    below.append((one.name, wanted, inner))
            elif wanted:
                try:
                    status = one.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed before anybody looked at it
                files.append(_file(path, status))
        if files:
            self._tell()
            self._found += files
        below.reverse()
        return below

    def _tell(self) -> None:
        """Put the directories on the way among the entries, as far as they are not there yet."""
        self._found += self._way[self._told :]
        self._told = len(self._way)

    def _enter(self, at: trees.Descent, name: str) -> None:
        path = f"{self._way[-1].path}/{name}" if self._way else name
        if len(path) > _LONGEST // 4 and len(os.fsencode(path)) > _LONGEST:
            raise InvalidArgument(f"`{path[:80]}…` in the build context: its path is longer than {_LONGEST} bytes")
        try:
            self._way.append(entry(path, at.enter(name)))
        except PermissionError as e:
            raise PermissionDenied(f"open `{path}` in the build context: permission denied") from e
        except (FileNotFoundError, NotADirectoryError) as e:
            raise changed(path) from e

    def _leave(self, at: trees.Descent) -> None:
        path = self._way.pop().path
        self._told = min(self._told, len(self._way))
        try:
            at.leave()
        except OSError as e:
            raise changed(path) from e
