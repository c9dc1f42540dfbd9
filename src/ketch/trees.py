"""Directory trees of any depth, walked and removed by descriptor.

Nothing here recurses, no path is ever given to the kernel, and some dozen descriptors are open however deep a tree
is: a container can make one of any depth, with paths far beyond PATH_MAX, and may change it while it is walked.  A
`Descent` keeps the descriptors of the innermost directories on its way.  To one whose descriptor it has let go it
returns by ``..``, and makes sure that this is the directory it came through; if not (somebody has moved what is below)
it looks for the way again from where the tree begins.  No symbolic link is followed.
"""

from __future__ import annotations

import os
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, ESTALE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    Item = TypeVar("Item", str, tuple[str, int])
    Opener = Callable[[str, int], int]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 16
_TRIES = 10
_PART = 4096
_SHOWN = 200


def open_directory(name: str, dir_fd: int) -> int:
    """Open a directory; a symbolic link is none (ENOTDIR).  What is mounted there is opened."""
    return os.open(name, DIRECTORY, dir_fd=dir_fd)


def make_path(path: str, mode: int = 0o777) -> None:
    """mkdir -p, however many directories are missing; one that is removed at the same moment is made again.

    ``mode`` is that of all directories that are made.
    """
    for _ in range(_TRIES):
        here, missing = path.rstrip("/") or "/", []
        while not _made(here, mode):
            missing.append(here)
            here = os.path.dirname(here)
        if all(_made(missing_path, mode) for missing_path in reversed(missing)):
            return
    raise OSError(ENOENT, os.strerror(ENOENT), path)


def _made(path: str, mode: int) -> bool:
    """Make one directory, unless it exists; False when its parent does not exist."""
    try:
        os.mkdir(path or ".", mode)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    return True


class Descent:
    """A place in a tree: ``fd`` is the directory that it stands in, ``depth`` levels below the one it was made with.

    The first descriptor stays the caller's; those that are opened on the way go with `close`.  ``fd`` is valid until
    the next `enter` or `leave`.  ``opener`` opens a directory by name; it may refuse some, such as mounts.
    """

    __slots__ = ("_kept", "_levels", "_open", "_prefix", "_root_fd", "fd", "lost")

    def __init__(self, root_fd: int, opener: Opener = open_directory) -> None:
        self._root_fd = self.fd = root_fd
        self._open = opener
        self._levels: list[tuple[str, int, int]] = []  # name, device and inode, outermost first
        self._kept: list[int] = []  # descriptors of the innermost levels
        self._prefix: str | None = ""
        self.lost = False

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened on the way."""
        for fd in self._kept:
            os.close(fd)
        self._kept.clear()
        self._levels.clear()
        self.fd = self._root_fd

    @property
    def depth(self) -> int:
        """Levels below the first directory."""
        return len(self._levels)

    @property
    def name(self) -> str:
        """The name by which the present directory was entered."""
        return self._levels[-1][0]

    @property
    def prefix(self) -> str:
        """The path from the first directory to the present one, with a ``/`` at its end; empty for the first."""
        if self._prefix is None:
            self._prefix = "".join([f"{level[0]}/" for level in self._levels])
        return self._prefix

    def enter(self, name: str) -> os.stat_result:
        """Go into a directory below the present one, and return what fstat(2) says of it; OSError: still here."""
        fd = self._open(name, self.fd)
        try:
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        self._levels.append((name, status.st_dev, status.st_ino))
        self._kept.append(fd)
        self.fd = fd
        if self._prefix is not None:
            self._prefix = f"{self._prefix}{name}/" if len(self._prefix) < _SHOWN else None
        if len(self._kept) > _KEPT:
            os.close(self._kept.pop(0))
        return status

    def leave(self) -> None:
        """Go back up; OSError (ESTALE) when the tree was changed so that there is no way back."""
        if self.retreat() > 1:
            raise OSError(ESTALE, "the directory was moved meanwhile", self.shown())

    def retreat(self) -> int:
        """Go back up, and return by how many levels: more than one when a directory on the way was moved away."""
        before = len(self._levels)
        below_fd = self._kept.pop()
        self._levels.pop()
        self._prefix = None
        try:
            if not self._levels:
                self.fd = self._root_fd
            elif self._kept:
                self.fd = self._kept[-1]
            else:
                self._kept.append(self._above(below_fd))
                self.fd = self._kept[-1]
        except OSError:
            self._find_again()
        finally:
            os.close(below_fd)
        return before - len(self._levels)

    def _above(self, below_fd: int) -> int:
        fd = os.open("..", DIRECTORY, dir_fd=below_fd)
        return self._checked(fd, self._levels[-1])

    @staticmethod
    def _checked(fd: int, level: tuple[str, int, int]) -> int:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != level[1:]:
            os.close(fd)
            raise OSError(ENOENT, os.strerror(ENOENT), level[0])
        return fd

    def _find_again(self) -> None:
        """Go to the deepest directory of the path that still exists."""
        levels = self._levels
        self._levels = []
        self.fd = self._root_fd
        for level in levels:
            try:
                fd = self._checked(self._open(level[0], self.fd), level)
            except OSError:
                return
            self._levels.append(level)
            self._kept.append(fd)
            self.fd = fd
            if len(self._kept) > _KEPT:
                os.close(self._kept.pop(0))

    def walk(self, names: Callable[[int], list[str]] = os.listdir) -> Iterator[str | None]:
        """The names in this directory, and after each that the caller has entered those in there; parents first.

        None is the end of a directory that was entered: the caller still stands in it, and then goes back up.  When
        `lost` is set, it was moved away before its end was reached, and the caller stands somewhere above.
        """
        pending = [names(self.fd)]
        pending[0].reverse()
        while True:
            while pending[-1]:
                depth = len(self._levels)
                yield pending[-1].pop()
                if len(self._levels) > depth:
                    pending.append(names(self.fd))
                    pending[-1].reverse()
            pending.pop()
            if not pending:
                return
            yield None
            levels = self.retreat()
            self.lost = True
            for _ in range(levels - 1):
                pending.pop()
                yield None
            self.lost = False

    def shown(self, name: str = "") -> str:
        """A path for a message, cut short in the middle when it is long."""
        path = self.prefix + name
        if len(path) <= _SHOWN:
            return path
        return f"{path[: _SHOWN // 2]}…{path[-_SHOWN // 2 :]}"


class Beside:
    """A second tree that is walked beside another one, as far as it has the same directories.

    ``fd`` is -1 where it has none, and everywhere when it was made with -1: there is no second tree.
    """

    __slots__ = ("_at", "_missing")

    def __init__(self, root_fd: int) -> None:
        self._at = Descent(root_fd)
        self._missing = 0 if root_fd >= 0 else 1

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self._at.close()

    @property
    def fd(self) -> int:
        """The descriptor of the directory that corresponds to the other tree's."""
        return -1 if self._missing else self._at.fd

    def enter(self, name: str) -> None:
        """Follow the other tree into the directory of this name."""
        if not self._missing:
            try:
                self._at.enter(name)
            except OSError as e:
                if e.errno not in (ENOENT, ENOTDIR):
                    raise
            else:
                return
        self._missing += 1

    def leave(self) -> None:
        """Follow the other tree back up."""
        if self._missing:
            self._missing -= 1
        else:
            self._at.leave()


def in_order(items: Iterable[Item]) -> list[Item]:
    """``sorted`` in parts, so that a long sort does not block all other threads."""
    from heapq import merge  # not for monitors, which are forks of who imports this

    parts: list[list[Item]] = [[]]
    for item in items:
        if len(parts[-1]) == _PART:
            parts[-1].sort()
            parts.append([])
        parts[-1].append(item)
    parts[-1].sort()
    return parts[0] if len(parts) == 1 else list(merge(*parts))


def sorted_names(fd: int) -> list[str]:
    """The names in an open directory, in order."""
    return in_order(os.listdir(fd))


def remove(dir_fd: int, name: str, opener: Opener = open_directory) -> None:
    """Remove an entry of a directory with everything in it; one that is gone is no error.

    What cannot be removed does not hold up the rest; the first such failure is raised at the end, with its path.
    """
    removal = _Removal(dir_fd, opener)
    try:
        removal.run(name)
    finally:
        removal.at.close()
    if removal.failure is not None:
        raise removal.failure


def remove_path(path: str, opener: Opener = open_directory) -> None:
    """`remove` by path; the error's own is the whole path."""
    directory, name = os.path.split(path)
    try:
        dir_fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove(dir_fd, name, opener)
    except OSError as e:
        below = e.filename if isinstance(e.filename, str) else name  # of listdir it is a descriptor's number
        raise OSError(e.errno, e.strerror, os.path.join(directory, below)) from e
    finally:
        os.close(dir_fd)


class _Removal:
    def __init__(self, dir_fd: int, opener: Opener) -> None:
        self.at = Descent(dir_fd, opener)
        self.failure: OSError | None = None
        self._tries = _TRIES

    def run(self, name: str) -> None:
        pending = [self._unlink([name])]  # directories that are still to go, level by level
        while pending:
            if pending[-1]:
                if self._enter(pending[-1].pop()):
                    pending.append(self._unlink(os.listdir(self.at.fd)))
                continue
            pending.pop()
            if pending:
                inner = self.at.name
                levels = self.at.retreat()
                if levels == 1:
                    if not self._rmdir(inner):
                        pending[-1].append(inner)
                else:  # the rest of what was moved away is met elsewhere, or is not ours any more
                    del pending[len(pending) - (levels - 1) :]

    def _unlink(self, names: list[str]) -> list[str]:
        """Remove those entries that are files; returns the directories."""
        fd = self.at.fd
        directories = []
        for name in names:
            try:
                os.unlink(name, dir_fd=fd)
            except OSError as e:
                if e.errno == EISDIR:
                    directories.append(name)
                elif e.errno != ENOENT:
                    self._failed(e, name)
        return directories

    def _enter(self, name: str) -> bool:
        try:
            self.at.enter(name)
        except OSError as e:
            if e.errno in (ENOTDIR, ELOOP):  # something else has taken its place
                self._unlink([name])
            elif e.errno != ENOENT:
                self._failed(e, name)
            return False
        return True

    def _rmdir(self, name: str) -> bool:
        """Remove an empty directory; False when something was put into it meanwhile."""
        try:
            os.rmdir(name, dir_fd=self.at.fd)
        except OSError as e:
            if e.errno == ENOTEMPTY and self.failure is None and self._tries:
                self._tries -= 1
                return False
            if e.errno not in (ENOENT, ENOTDIR):
                self._failed(e, name)
        return True

    def _failed(self, error: OSError, name: str) -> None:
        if self.failure is None:
            self.failure = OSError(error.errno, error.strerror, self.at.shown(name))
