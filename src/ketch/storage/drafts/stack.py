"""Trees of several layers, read without a mount: directories in overlay's form, one upon the other.

A whiteout hides the name in all layers below, a directory with ``trusted.overlay.opaque`` the content of its
namesakes, and so does anything that is no directory.  What a tree has is thus found together with the layer that it is
of, from which it can be hard linked; a mount would refuse that.  No symbolic link is followed by the kernel.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from errno import ELOOP
from typing import TYPE_CHECKING, NamedTuple

from ketch import trees
from ketch.storage.archive.layer import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_LINKS = 255  # on the way to one name


class StackEntry(NamedTuple):
    """An entry of a tree: the number of its layer (0: the topmost), the directory that it is in, what lstat says."""

    layer: int
    dir_fd: int
    status: os.stat_result


class LayerStack:
    """One tree of open directories, topmost first; they stay the caller's.  None of them: an empty tree."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = tuple(fds)

    def walk(self) -> StackDescent:
        """A place in the tree, at its root."""
        return StackDescent(self.fds)

    def resolve(self, path: str, *, follow: bool = True, root: Sequence[str] = ()) -> list[str]:
        """A path's names with every link and ``..`` resolved as if the tree's root were ``/`` (OSError: ELOOP).

        Names that do not exist stay as they are.  Without ``follow`` a link at the end stays one.  ``root``: a
        directory that is taken for the root; its own names are not among those returned.
        """
        done: list[str] = []
        pending = names(path)[::-1]
        links = missing = 0  # how many names at the end of `done` are no directories
        with self.walk() as at:
            for name in root:
                at.enter(name)
            while pending:
                name = pending.pop()
                if name == "..":
                    if done:
                        done.pop()
                        if missing:
                            missing -= 1
                        else:
                            at.leave()
                    continue
                found = None if missing else at.find(name)
                if found and stat.S_ISLNK(found.status.st_mode) and (pending or follow):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(ELOOP, os.strerror(ELOOP), path)
                    target = os.readlink(name, dir_fd=found.dir_fd)
                    if target.startswith("/"):
                        at.home(len(root))
                        done.clear()
                        missing = 0
                    pending += names(target)[::-1]
                    continue
                done.append(name)
                if missing or not at.enter(name):
                    if not missing:
                        at.leave()
                    missing += 1
        return done

    def find(self, path: Sequence[str]) -> os.stat_result | None:
        """The status of an entry by its resolved names, as lstat(2) gives it; None: it is not there.

        NotADirectoryError: something on the way is no directory.
        """
        with self.walk() as at:
            for name in path[:-1]:
                found = at.find(name)
                if found is None:
                    return None
                if not at.enter(name):
                    raise NotADirectoryError(20, "not a directory", shown(path))
            if not path:
                return os.fstat(at.fd) if self.fds else None
            last = at.find(path[-1])
            return last.status if last else None

    def open_file(self, path: Sequence[str]) -> int | None:
        """A descriptor of a regular file by its resolved names; None: there is none."""
        with self.walk() as at:
            if not path or not all(map(at.enter, path[:-1])):
                return None
            found = at.find(path[-1])
            if not found or not stat.S_ISREG(found.status.st_mode):
                return None
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(path[-1], flags, dir_fd=found.dir_fd)


@contextmanager
def opened(directories: Sequence[str]) -> Iterator[LayerStack]:
    """A tree of layers' directories, lowest first, as long as the context lasts."""
    fds: list[int] = []
    try:
        for directory in reversed(directories):
            fds += [os.open(directory, trees.DIRECTORY)]
        yield LayerStack(fds)
    finally:
        for fd in fds:
            os.close(fd)


class StackDescent:
    """A place in a tree of layers, as `trees.Descent` is one in a directory: any depth takes few descriptors."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._layers = [trees.Descent(fd) for fd in fds]
        self._levels: list[tuple[int, ...]] = [tuple(range(len(fds)))]  # the layers that have each directory

    def __enter__(self) -> StackDescent:
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self._layers:
            layer.close()

    @property
    def fd(self) -> int:
        """The present directory in the topmost layer that has it (IndexError: none has)."""
        return self._layers[self._levels[-1][0]].fd

    @property
    def empty(self) -> bool:
        """Whether no layer has the present directory."""
        return not self._levels[-1]

    @property
    def only_layer(self) -> int | None:
        """The layer that has the present directory; None: several have, or none."""
        layers = self._levels[-1]
        return layers[0] if len(layers) == 1 else None

    def layer_fd(self, layer: int) -> int:
        """The present directory in a layer that has it."""
        return self._layers[layer].fd

    def find(self, name: str) -> StackEntry | None:
        """An entry of the present directory."""
        for layer in self._levels[-1]:
            fd = self._layers[layer].fd
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                return None if is_whiteout(status) else StackEntry(layer, fd, status)
        return None

    def entries(self) -> list[tuple[str, int]]:
        """The names in the present directory, in order, each with its layer; whiteouts are among them."""
        found: dict[str, int] = {}
        for layer in self._levels[-1]:
            for name in os.listdir(self._layers[layer].fd):
                found.setdefault(name, layer)
        return trees.in_order(found.items())

    def enter(self, name: str) -> bool:
        """Go to a name in the present directory; False: it is no directory, and the place is an empty one."""
        entered: list[int] = []
        try:
            for layer in self._levels[-1]:
                at = self._layers[layer]
                try:
                    at.enter(name)
                except FileNotFoundError:
                    continue
                except NotADirectoryError:
                    break
                entered.append(layer)
                if len(self._levels[-1]) > 1 and is_opaque(at.fd):
                    break
        finally:
            self._levels.append(tuple(entered))
        return bool(entered)

    def enter_nothing(self) -> None:
        """Go to a place that no layer has."""
        self._levels.append(())

    def leave(self) -> None:
        """Go back up."""
        for layer in self._levels.pop():
            self._layers[layer].leave()

    def home(self, depth: int = 0) -> None:
        """Go back to where the place was ``depth`` levels below the root."""
        while len(self._levels) > depth + 1:
            self.leave()


def names(path: str) -> list[str]:
    """The names that a path consists of."""
    return [name for name in path.split("/") if name not in ("", ".")]


def shown(path: Sequence[str], *more: str) -> str:
    """Names as an absolute path."""
    return "/" + "/".join((*path, *more))
