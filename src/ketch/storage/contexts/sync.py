"""A client's directory received as a layer, beside what the client sent of it last time.

The entries come in order.  As long as they are those of the last copy, in which nothing can have changed unseen,
nothing is written: if all are, the last copy is the result.  From the first difference on a new layer is made: links
of what is unchanged, and the content of what is not, which is asked for.

No name is ever looked up through a link: all directories on the way are those of the list, made here (`SentOrder`).
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from errno import EDQUOT, EINVAL, EMLINK, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EXDEV
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import Conflict, DataLoss, InvalidArgument, ResourceExhausted
from ketch.storage.archive.limits import Reserve
from ketch.storage.contexts.attributes import attributes, set_attributes
from ketch.storage.contexts.copies import changed_paths
from ketch.storage.contexts.sent import SentEntry, SentOrder
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.storage.contexts.fill import Row

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64  # files that are open at once
_NEVER_NS = 1 << 62  # a time of change after which nothing is settled
_AN_ENTRY = 4096  # bytes that one takes on the disk, about


class LastCopy(NamedTuple):
    """The copy of last time: its rows, those of them that cannot have changed unseen, and its directory."""

    rows: Sequence[Row]
    settled: frozenset[Row]
    fd: int


class DirectorySync:
    """The receiving end of one directory; `close` it.  Blocking; one call at a time.

    ``begin`` gives the directory of a new layer, and is called once at most.
    """

    def __init__(self, begin: Callable[[], str], last: LastCopy | None = None) -> None:
        self._begin = begin
        self._last = last
        self._order = SentOrder()
        self._writing: _Writing | None = None
        self.rows: list[Row] = []

    def close(self) -> None:
        """Close what is open."""
        if self._writing is not None:
            self._writing.close()

    @property
    def unchanged(self) -> bool:
        """Whether nothing was written: after `finish`, that the last copy is the result."""
        return self._writing is None

    def changed_paths(self) -> set[str]:
        """The paths of what is not as in the last copy, and of all above them.

        Files with something beside their content count among them: a hard link changes with the file that it names.
        """
        last = self._last
        if last is None:
            return {row[0] for row in self.rows}
        known = {row for row in last.settled if not (row[6] and stat.S_ISREG(row[1]))}
        return changed_paths(self.rows, last.rows, known)

    def entry(self, one: SentEntry) -> bool:
        """Take the next entry; True: its content is asked for (KetchError)."""
        self._order.check(one)
        row = one.row()
        number = len(self.rows)
        self.rows.append(row)
        if self._writing is None:
            last = self._last
            if last is not None and number < len(last.rows) and last.rows[number] == row and row in last.settled:
                return False
            self._write(number)
        assert self._writing is not None
        return self._writing.make(number, one, row)

    def _write(self, unchanged: int) -> _Writing:
        """Begin to write, with so many entries that are as they were."""
        self._writing = writing = _Writing(self._begin(), self._last)
        if self._last is not None:
            for row in self._last.rows[:unchanged]:
                writing.make_again(row)
        return writing

    def data(self, number: int, piece: bytes | memoryview) -> None:
        """Write the next piece of a file, by its number in the list (InvalidArgument: it was not asked for)."""
        writing = self._written(number)
        writing.data(number, self.rows[number], piece)

    def end(self, number: int) -> None:
        """End a file (InvalidArgument: it was not asked for; Conflict: there is less of it than was told)."""
        writing, row = self._written(number), self.rows[number]
        size = writing.end(number, row)
        path, mode, told, mtime_ns, _, owner, details = row
        if size != told:  # it grew while it was read: the next time it counts as changed
            self.rows[number] = path, mode, told, mtime_ns, _NEVER_NS, owner, details

    def _written(self, number: int) -> _Writing:
        if self._writing is None or number not in self._writing.expected:
            raise InvalidArgument(
                f"the client sends a file that was not asked for, number {number} of the build context",
                hint="it does not send a directory as it should",
            )
        return self._writing

    def finish(self) -> None:
        """Make what is made last: hard links, and the modes and times of directories."""
        last = self._last
        if self._writing is None and (last is None or len(self.rows) < len(last.rows)):
            self._write(len(self.rows))
        if self._writing is not None:
            if self._writing.expected:
                raise InvalidArgument("the client ends before all files that were asked for have come")
            self._writing.finish()


class _File:
    """A file that comes: its descriptor (-1: closed), and the bytes that have come."""

    __slots__ = ("fd", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self.size = 0


class _Directory(NamedTuple):
    """A directory whose owner, mode and time are set when all is in it."""

    path: str
    mode: int
    mtime_ns: int
    uid: int
    gid: int


class _Writing:
    """The making of a layer in an empty directory."""

    def __init__(self, directory: str, last: LastCopy | None) -> None:
        # Files that are to come, of which there may be many: what else is known of them is in their rows.
        self.expected: dict[int, tuple[tuple[str, bytes], ...]] = {}  # extended attributes
        self._begun: dict[int, _File] = {}
        self._open: OrderedDict[int, _File] = OrderedDict()
        self._directories: list[_Directory] = []
        self._hard_links: list[tuple[str, str]] = []
        self._files: set[str] = set()  # paths that hard links may name
        self._owner = os.geteuid(), os.getegid()
        self._known = last.settled if last is not None else frozenset()
        self._known_fd = last.fd if last is not None else -1
        with ExitStack() as undo:
            self._fd = os.open(directory, _DIRECTORY)
            undo.callback(os.close, self._fd)
            self._copier = Copier(self._fd)
            self._reserve = Reserve(self._fd, "receive the build context")
            undo.pop_all()

    def close(self) -> None:
        for file in self._open.values():
            os.close(file.fd)
        self._open.clear()
        os.close(self._fd)

    # -- what is as it was -----------------------------------------------------------------------

    def make_again(self, row: Row) -> None:
        """Make an entry of the last copy once more."""
        path, mode, _, mtime_ns, _, owner, _ = row
        with _told(path):
            self._reserve.take(_AN_ENTRY)
            if stat.S_ISDIR(mode):
                fd = os.open(path, _DIRECTORY, dir_fd=self._known_fd)
                try:
                    found = attributes(fd)
                finally:
                    os.close(fd)
                given = tuple(found.items())
                self._make_directory(SentEntry(path, mode, 0, mtime_ns, owner >> 32, owner & 0xFFFFFFFF, "", 0, given))
            elif not self._link(path):
                raise DataLoss(f"`{path}` of the last copy of the build context is gone", hint="build again")
            elif stat.S_ISREG(mode):
                self._files.add(path)

    def _link(self, path: str) -> bool:
        """Link an entry of the last copy; False when it is gone."""
        try:
            os.link(path, path, src_dir_fd=self._known_fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR):
                return False
            if e.errno not in (EMLINK, EXDEV):
                raise
            self._copier.entry(self._known_fd, path, self._fd, path)
        return True

    # -- what is new -----------------------------------------------------------------------------

    def make(self, number: int, one: SentEntry, row: Row) -> bool:
        """Make an entry; True: its content is to come."""
        path, mode = one.path, one.mode
        with _told(path):
            self._reserve.take(_AN_ENTRY)
            if stat.S_ISDIR(mode):
                self._make_directory(one)
            elif stat.S_ISREG(mode):
                return self._make_file(number, one, row)
            elif not (row in self._known and self._link(path)):
                self._make_other(one)
            return False

    def _make_directory(self, one: SentEntry) -> None:
        os.mkdir(one.path, 0o700, dir_fd=self._fd)
        if one.attributes:
            fd = os.open(one.path, _DIRECTORY, dir_fd=self._fd)
            try:
                set_attributes(fd, one.attributes)
            finally:
                os.close(fd)
        self._directories.append(_Directory(one.path, stat.S_IMODE(one.mode), one.mtime_ns, one.uid, one.gid))

    def _make_file(self, number: int, one: SentEntry, row: Row) -> bool:
        if one.link:
            if one.link not in self._files:
                raise InvalidArgument(
                    f"`{one.path[:200]}` in the build context: it is a link to {one.link[:200]!r}, "
                    "which is no file before it in the list"
                )
            self._hard_links.append((one.path, one.link))
            return False
        self._files.add(one.path)
        if row in self._known and self._link(one.path):
            return False
        self.expected[number] = one.attributes
        return True

    def _make_other(self, one: SentEntry) -> None:
        """Make a symbolic link or a node."""
        path = one.path
        if stat.S_ISLNK(one.mode):
            os.symlink(one.link, path, dir_fd=self._fd)
        else:
            os.mknod(path, stat.S_IFMT(one.mode) | 0o600, one.device, dir_fd=self._fd)
        if (one.uid, one.gid) != self._owner:
            os.chown(path, one.uid, one.gid, dir_fd=self._fd, follow_symlinks=False)
        if not stat.S_ISLNK(one.mode):
            os.chmod(path, stat.S_IMODE(one.mode), dir_fd=self._fd)
        os.utime(path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._fd, follow_symlinks=False)

    # -- content ---------------------------------------------------------------------------------

    def data(self, number: int, row: Row, piece: bytes | memoryview) -> None:
        with _told(row[0]):
            self._reserve.take(len(piece))
            file = self._file(number, row)
            file.size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file.fd, rest) :]

    def _file(self, number: int, row: Row) -> _File:
        """The file, open; that which has been open for longest is closed where there are many."""
        file = self._begun.get(number)
        if file is not None and file.fd >= 0:
            return file
        if len(self._open) >= _OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest.fd)
            oldest.fd = -1
        if file is None:
            file = _File(row[0])
            file.fd = os.open(file.path, _NEW, 0o600, dir_fd=self._fd)
            self._begun[number] = file
        else:
            file.fd = os.open(file.path, _AGAIN, dir_fd=self._fd)
        self._open[number] = file
        return file

    def end(self, number: int, row: Row) -> int:
        """Close a file with all that it has; returns its size."""
        path, mode, told, mtime_ns, _, owner, _ = row
        with _told(path):
            file = self._file(number, row)
            if file.size < told:
                raise Conflict(
                    f"`{path}` in the build context: the client sends {file.size} of its {told} bytes",
                    hint="it may not read the file, or the file changed meanwhile",
                )
            uid, gid = owner >> 32, owner & 0xFFFFFFFF
            if (uid, gid) != self._owner:
                os.fchown(file.fd, uid, gid)
            given = self.expected.pop(number)
            if given:
                set_attributes(file.fd, given)
            os.fchmod(file.fd, stat.S_IMODE(mode))
            os.utime(file.fd, ns=(mtime_ns, mtime_ns))
        del self._begun[number], self._open[number]
        os.close(file.fd)
        return file.size

    def finish(self) -> None:
        for path, target in self._hard_links:
            with _told(path):
                os.link(target, path, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        for one in reversed(self._directories):
            with _told(one.path):
                if (one.uid, one.gid) != self._owner:
                    os.chown(one.path, one.uid, one.gid, dir_fd=self._fd)
                os.chmod(one.path, one.mode, dir_fd=self._fd)
                os.utime(one.path, ns=(one.mtime_ns, one.mtime_ns), dir_fd=self._fd)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors of the kernel as what they mean for an entry."""
    try:
        yield
    except OSError as e:
        if e.errno in (ENOSPC, EDQUOT):
            raise ResourceExhausted(
                "receive the build context: no space left on device",
                hint="make room, for instance with: docker system prune",
            ) from e
        if e.errno in (ENAMETOOLONG, EINVAL):
            raise InvalidArgument(f"{path[:200]!r} in the build context: {e.strerror}") from e
        raise
