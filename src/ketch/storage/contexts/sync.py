"""A client's directory received as a layer, beside what the client sent of it last time.

The entries come in order.  What is as in the last copy, in which nothing can have changed unseen, is not asked for.
When all is, the last copy is the result.  Else the content of what has changed is put aside until everything has come;
then a layer is made of it and of links to the rest, or, where nobody else needs the last copy, that one is changed.

No name is ever looked up through a link: all directories on the way are those of the list, made here (`SentOrder`).
"""

from __future__ import annotations

import os
import stat
from errno import EMLINK, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ketch.errors import DataLoss, InvalidArgument
from ketch.storage.archive.limits import Reserve
from ketch.storage.contexts.attributes import attributes
from ketch.storage.contexts.copies import with_parents
from ketch.storage.contexts.made import AN_ENTRY, DIRECTORY, EntryMaker, ReceivedFiles, told
from ketch.storage.contexts.sent import SentEntry, SentOrder
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.storage.contexts.fill import Row

    Begin = Callable[[], "NewLayer"]

_NEVER_NS = 1 << 62  # a time of change after which nothing is settled


class NewLayer(Protocol):
    """A layer that is being made: the directory for its files, and one beside it that goes in the end."""

    @property
    def directory(self) -> str: ...

    @property
    def work(self) -> str: ...


def _never() -> None:
    """Take over nothing."""


class LastCopy(NamedTuple):
    """The copy of last time: its rows, those of them that cannot have changed unseen, and its directory.

    ``take`` gives that directory as one of a layer that is being made; None: others need it as it is.
    """

    rows: Sequence[Row]
    settled: frozenset[Row]
    fd: int
    take: Callable[[], NewLayer | None] = _never


class DirectorySync:
    """The receiving end of one directory; `close` it.  Blocking; one call at a time.

    ``begin`` gives a new layer, and is called once at most.
    """

    def __init__(self, begin: Begin, last: LastCopy | None = None) -> None:
        self._order = SentOrder()
        self._writing: _Fresh | _Changed = _Fresh(begin) if last is None else _Changed(begin, last)
        self.rows: list[Row] = []

    def close(self) -> None:
        """Close what is open."""
        self._writing.close()

    @property
    def unchanged(self) -> bool:
        """Whether nothing was written: after `finish`, that the last copy is the result."""
        return not self._writing.begun

    def changed_paths(self) -> set[str]:
        """The paths of what is not as in the last copy, and of all above them.

        Files with something beside their content count among them: a hard link changes with the file that it names.
        """
        writing = self._writing
        if isinstance(writing, _Fresh):
            return {row[0] for row in self.rows}
        linked = (row[0] for row in self.rows if row[6] and stat.S_ISREG(row[1]))
        changed = (self.rows[number][0] for number in writing.changes)
        return with_parents((*(row[0] for row in writing.gone), *changed, *linked))

    def entry(self, one: SentEntry) -> bool:
        """Take the next entry; True: its content is asked for (KetchError)."""
        self._order.check(one)
        row = one.row()
        self.rows.append(row)
        return self._writing.entry(len(self.rows) - 1, one, row)

    def data(self, number: int, piece: bytes | memoryview) -> None:
        """Write the next piece of a file, by its number in the list (InvalidArgument: it was not asked for)."""
        self._expecting(number).data(number, self.rows[number], piece)

    def end(self, number: int) -> None:
        """End a file (InvalidArgument: it was not asked for; Conflict: there is less of it than was told)."""
        files, row = self._expecting(number), self.rows[number]
        size = files.end(number, row)
        path, mode, expected, mtime_ns, _, owner, details = row
        if size != expected:  # it grew while it was read: the next time it counts as changed
            self.rows[number] = path, mode, expected, mtime_ns, _NEVER_NS, owner, details

    def _expecting(self, number: int) -> ReceivedFiles:
        files = self._writing.files
        if files is None or number not in files.expected:
            raise InvalidArgument(
                f"the client sends a file that was not asked for, number {number} of the build context",
                hint="it does not send a directory as it should",
            )
        return files

    def finish(self) -> None:
        """Make what is made when everything has come."""
        files = self._writing.files
        if files is not None and files.expected:
            raise InvalidArgument("the client ends before all files that were asked for have come")
        self._writing.finish(self.rows)


class _Fresh:
    """The making of a layer of which nothing is here."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._names = _FileNames()
        self.files: ReceivedFiles | None = None
        self._maker: EntryMaker | None = None

    @property
    def begun(self) -> bool:
        return self.files is not None

    def close(self) -> None:
        if self.files is not None:
            self.files.close()

    def _started(self) -> tuple[ReceivedFiles, EntryMaker]:
        if self.files is None or self._maker is None:
            self.files = ReceivedFiles(self._begin().directory)
            self._maker = EntryMaker(self.files.fd)
        return self.files, self._maker

    def entry(self, number: int, one: SentEntry, row: Row) -> bool:
        """Make an entry; True: its content is to come."""
        del row
        files, maker = self._started()
        with told(one.path):
            files.reserve.take(AN_ENTRY)
            if stat.S_ISDIR(one.mode):
                maker.directory(one)
            elif not stat.S_ISREG(one.mode):
                maker.other(one)
            elif self._names.is_link(one):
                maker.hard_link(one.path, one.link)
            else:
                files.expected[number] = one.attributes
                return True
            return False

    def finish(self, rows: Sequence[Row]) -> None:
        del rows
        self._started()[1].finish()


class _Changed:
    """The making of a layer that is the last copy but for what has changed, which is noted until all has come."""

    def __init__(self, begin: Begin, last: LastCopy) -> None:
        self._begin, self._last = begin, last
        self._names = _FileNames()
        self.changes: dict[int, SentEntry] = {}
        self.gone: list[Row] = []
        self._anew: set[str] = set()  # files whose content comes
        self._layer: NewLayer | None = None
        self.files: ReceivedFiles | None = None

    @property
    def begun(self) -> bool:
        return self._layer is not None

    def close(self) -> None:
        if self.files is not None:
            self.files.close()

    def entry(self, number: int, one: SentEntry, row: Row) -> bool:
        """Note an entry; True: its content is to come."""
        known, is_file = row in self._last.settled, stat.S_ISREG(one.mode)
        linked = is_file and self._names.is_link(one)
        if known and not (linked and one.link in self._anew):
            return False
        self.changes[number] = one
        if not is_file or linked:
            return False
        if self.files is None:
            self.files = ReceivedFiles(self._begun().work, numbered=True)
        self._anew.add(one.path)
        self.files.expected[number] = one.attributes
        return True

    def _begun(self) -> NewLayer:
        if self._layer is None:
            self._layer = self._begin()
        return self._layer

    def finish(self, rows: Sequence[Row]) -> None:
        """Make the layer, if anything has changed."""
        present = {row[0] for row in rows}
        self.gone = [row for row in self._last.rows if row[0] not in present]
        if not self.changes and not self.gone:
            return
        layer = self._begun()
        taken = self._last.take()
        fd = os.open((taken or layer).directory, DIRECTORY)
        try:
            if taken is None:
                _Linking(fd, self._last, self.files).run(rows, self.changes)
            else:
                _InPlace(fd, self._last, self.files).run(rows, self.changes, self.gone)
        finally:
            os.close(fd)


class _FileNames:
    """The names of files of a list so far, which hard links may name."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def is_link(self, one: SentEntry) -> bool:
        """Whether a file is a further name of another one (InvalidArgument: of none); else its own counts from now."""
        if not one.link:
            self._paths.add(one.path)
            return False
        if one.link not in self._paths:
            raise InvalidArgument(
                f"`{one.path[:200]}` in the build context: it is a link to {one.link[:200]!r}, "
                "which is no file before it in the list"
            )
        return True


class _Making:
    """The making of what has changed, in an open directory, with files that have come."""

    def __init__(self, fd: int, last: LastCopy, files: ReceivedFiles | None) -> None:
        self._fd, self._last = fd, last
        self._files = files
        self._maker = EntryMaker(fd)
        self._reserve = Reserve(fd, "receive the build context")

    def _make(self, number: int, one: SentEntry, *, exists: bool = False) -> None:
        """Make an entry; ``exists``: the directory is there."""
        self._reserve.take(AN_ENTRY)
        if stat.S_ISDIR(one.mode):
            self._maker.directory(one, exists=exists)
        elif not stat.S_ISREG(one.mode):
            self._maker.other(one)
        elif one.link:
            self._maker.hard_link(one.path, one.link)
        else:
            assert self._files is not None
            os.rename(str(number), one.path, src_dir_fd=self._files.fd, dst_dir_fd=self._fd)


class _Linking(_Making):
    """The making in an empty directory: what has not changed is linked."""

    def run(self, rows: Sequence[Row], changes: dict[int, SentEntry]) -> None:
        self._copier = Copier(self._fd)
        for number, row in enumerate(rows):
            with told(row[0]):
                if (one := changes.get(number)) is not None:
                    self._make(number, one)
                else:
                    self._make_again(row)
        self._maker.finish()

    def _make_again(self, row: Row) -> None:
        """Make an entry of the last copy once more."""
        path, mode, _, mtime_ns, _, owner, _ = row
        self._reserve.take(AN_ENTRY)
        if not stat.S_ISDIR(mode):
            self._link(path)
            return
        fd = os.open(path, DIRECTORY, dir_fd=self._last.fd)
        try:
            given = tuple(attributes(fd).items())
        finally:
            os.close(fd)
        self._maker.directory(SentEntry(path, mode, 0, mtime_ns, owner >> 32, owner & 0xFFFFFFFF, "", 0, given))

    def _link(self, path: str) -> None:
        """Link an entry of the last copy (DataLoss)."""
        try:
            os.link(path, path, src_dir_fd=self._last.fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR):
                raise _damaged(path) from e
            if e.errno not in (EMLINK, EXDEV):
                raise
            self._copier.entry(self._last.fd, path, self._fd, path)


class _InPlace(_Making):
    """The making in the last copy's own directory."""

    def run(self, rows: Sequence[Row], changes: dict[int, SentEntry], gone: Sequence[Row]) -> None:
        for row in reversed(gone):  # what is in a directory comes after it
            self._remove(row)
        before = {row[0]: row[1] for row in self._last.rows}
        for number, one in changes.items():
            with told(one.path):
                exists = self._make_room(one, before.get(one.path, 0))
                self._make(number, one, exists=exists)
        touched = {
            path.rpartition("/")[0] for path in (*(row[0] for row in gone), *(one.path for one in changes.values()))
        }
        for row in rows:
            if row[0] in touched and stat.S_ISDIR(row[1]):
                self._maker.touched(row)
        self._maker.finish()

    def _make_room(self, one: SentEntry, before: int) -> bool:
        """Remove what has an entry's name (its mode ``before``, 0: nothing has); True: it is a directory, and stays."""
        if stat.S_ISDIR(before) and stat.S_ISDIR(one.mode):
            return True
        comes_over_it = stat.S_ISREG(one.mode) and not one.link and not stat.S_ISDIR(before)
        if before and not comes_over_it:
            self._remove((one.path, before, 0, 0, 0, 0, 0))
        return False

    def _remove(self, row: Row) -> None:
        """Remove an entry of the last copy (DataLoss: it is not what it was)."""
        path, mode = row[0], row[1]
        try:
            if stat.S_ISDIR(mode):
                os.rmdir(path, dir_fd=self._fd)
            else:
                os.unlink(path, dir_fd=self._fd)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR, ENOTEMPTY):
                raise _damaged(path) from e
            raise


def _damaged(path: str) -> DataLoss:
    return DataLoss(f"`{path}` of the last copy of the build context is gone", hint="build again")
