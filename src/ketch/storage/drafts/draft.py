"""A layer in the making: an overlay's upper directory, written without a mount upon the layers below.

What is made, removed and replaced here is what overlay would have written: a directory that only exists below is made
above, with what it has, as soon as something is put into it; a removed name becomes a whiteout; a directory that
replaces what was removed is opaque.  Files in a draft may be hard links of other layers' files: nothing writes to one,
nor changes its owner or mode; it is replaced.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ketch import trees
from ketch.errors import InvalidArgument
from ketch.linux.openat2 import open_unmounted
from ketch.storage import overlay_notes, ownership
from ketch.storage.archive.layer import is_opaque, is_whiteout
from ketch.storage.drafts.metadata import FileMetadata, of_directory
from ketch.storage.drafts.stack import LayerStack, opened, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPAQUE = overlay_notes.OPAQUE


class Draft:
    """A layer's open directory that is written, and the tree that it lies on."""

    def __init__(self, upper_fd: int, below: LayerStack) -> None:
        self.upper_fd = upper_fd
        self.below = below
        self.merged = LayerStack((upper_fd, *below.fds))
        self.linked: dict[int, object] = {}
        """Inodes that have a name in the draft and belong to other layers: a second name would be a hard link.

        Only who has linked one, which the value tells, may do so again.
        """

    @contextmanager
    def at(self, path: Sequence[str]) -> Iterator[DraftPlace]:
        """A place in the merged tree by its resolved names (FileNotFoundError, NotADirectoryError)."""
        with DraftPlace(self) as place:
            for name in path:
                place.enter(name)
            yield place

    def make_directories(self, path: Sequence[str], mode: int, owner: tuple[int, int] | None) -> list[Sequence[str]]:
        """Make a directory and those above it that are missing, and return the names of each that was made.

        InvalidArgument: something on the way is no directory.
        """
        made: list[Sequence[str]] = []
        with DraftPlace(self) as place:
            for count, name in enumerate(path, 1):
                found = place.find(name)
                if found is None:
                    place.enter_new(name)
                    fd = place.make()
                    if owner:
                        ownership.give(fd, *owner)
                    os.fchmod(fd, mode)
                    made.append(path[:count])
                elif stat.S_ISDIR(found.st_mode):
                    place.enter(name)
                else:
                    raise InvalidArgument(f"mkdir {shown(path[:count])}: not a directory")
        return made

    def set_times(self, paths: Sequence[Sequence[str]], time_ns: int) -> None:
        """Set the time of directories that the draft has, the outer ones last."""
        for path in sorted(paths, key=len, reverse=True):
            with self.at(path) as place:
                os.utime(place.make(), ns=(time_ns, time_ns))


@contextmanager
def begun(upper: str, below: Sequence[str]) -> Iterator[Draft]:
    """A draft in a directory, upon layers' directories (lowest first); a new one's root has what the tree's has."""
    with opened(below) as stack:
        upper_fd = os.open(upper, trees.DIRECTORY)
        try:
            if stack.fds and not os.listdir(upper_fd):
                of_directory(stack.fds[0]).set_on(upper_fd)
            yield Draft(upper_fd, stack)
        finally:
            os.close(upper_fd)


class _Unmade(NamedTuple):
    """A directory that a place is in, and that the draft does not have yet.

    ``like``: what the one below has; None: it is new.  ``opaque``: it hides one below.  ``refused``: why it cannot be.
    """

    name: str
    like: FileMetadata | None
    opaque: bool = False
    refused: str = ""


class DraftPlace:
    """A place in the merged tree of a draft; what is put there makes its directory and those above in the draft."""

    def __init__(self, draft: Draft) -> None:
        self._upper = trees.Descent(draft.upper_fd)
        self._below = draft.below.walk()
        self._unmade: list[_Unmade] = []

    def __enter__(self) -> DraftPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self._upper.close()
        self._below.__exit__()

    @property
    def made(self) -> bool:
        """Whether the draft has the present directory."""
        return not self._unmade

    @property
    def bare(self) -> bool:
        """Whether nothing lies below the present directory."""
        return self._below.empty

    def find(self, name: str) -> os.stat_result | None:
        """The status of an entry of the present directory, as lstat(2) gives it; None: there is none."""
        if not self._unmade:
            status = _status(self._upper.fd, name)
            if status is not None:
                return None if is_whiteout(status) else status
        found = self._below.find(name)
        return found.status if found else None

    def metadata(self) -> FileMetadata:
        """The metadata of the present directory (a new one that is not made: FileNotFoundError)."""
        if not self._unmade:
            return of_directory(self._upper.fd)
        like = self._unmade[-1].like
        if like is None:
            raise FileNotFoundError(2, "not made yet", self._unmade[-1].name)
        return like

    def enter(self, name: str) -> None:
        """Go into a directory (FileNotFoundError, NotADirectoryError: there is none)."""
        if not self._unmade:
            with suppress(FileNotFoundError):
                self._upper.enter(name)
                if self._below.empty or is_opaque(self._upper.fd):
                    self._below.enter_nothing()
                else:
                    self._below.enter(name)
                return
        if not self._below.enter(name):
            self._below.leave()
            kind = NotADirectoryError if self._below.find(name) else FileNotFoundError
            raise kind(20 if kind is NotADirectoryError else 2, "no such directory", name)
        self._unmade.append(_Unmade(name, of_directory(self._below.fd)))

    def enter_new(self, name: str, *, refused: str = "") -> None:
        """Go into a directory that does not exist, and is made when something is put into it, or by `make`.

        ``refused``: why it cannot be made (InvalidArgument, then); else there must be nothing of this name.
        """
        below = self._below.find(name)
        self._unmade.append(_Unmade(name, None, below is not None and stat.S_ISDIR(below.status.st_mode), refused))
        self._below.enter_nothing()

    def leave(self) -> None:
        """Go back up."""
        self._below.leave()
        if self._unmade:
            self._unmade.pop()
        else:
            self._upper.leave()

    def make(self) -> int:
        """The descriptor of the present directory in the draft, which gets it."""
        for one in self._unmade:
            if one.refused:
                raise InvalidArgument(one.refused)
            parent_fd = self._upper.fd
            before = os.fstat(parent_fd)
            _make_directory(parent_fd, one.name)
            self._upper.enter(one.name)
            if one.opaque:
                os.setxattr(self._upper.fd, _OPAQUE, b"y")
            if one.like:
                one.like.set_on(self._upper.fd)
                os.utime(parent_fd, ns=(before.st_atime_ns, before.st_mtime_ns))  # for the tree, nothing has happened
        self._unmade.clear()
        return self._upper.fd

    def clear(self, name: str) -> None:
        """Remove what the draft has of a name that something else than a directory is going to have."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.make())

    def remove(self, name: str) -> None:
        """Remove an entry, with everything in it; nothing there is no error."""
        if not self._unmade:
            trees.remove(self._upper.fd, name, open_unmounted)
        if self._below.find(name):
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=self.make())


def _make_directory(fd: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
    except FileExistsError:  # a whiteout
        os.unlink(name, dir_fd=fd)
        os.mkdir(name, 0o700, dir_fd=fd)


def _status(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
