"""Copies of entries from one tree of layers to a draft, with BuildKit's rules for what is there already.

Layers never change, so a file that stays as it is (owner, mode, times) is hard linked; where that is impossible its
bytes are shared (FICLONE), or copied by the kernel.  What is a hard link of another file within its layer stays one;
nothing else becomes one.
"""

from __future__ import annotations

import os
import stat
from errno import EEXIST, EMLINK, EPERM, EXDEV
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch import trees
from ketch.errors import InvalidArgument
from ketch.storage.archive.layer import is_whiteout
from ketch.storage.byte_copy import ByteCopier
from ketch.storage.drafts.draft import DraftPlace
from ketch.storage.drafts.metadata import metadata_of, of_directory, open_xattrs
from ketch.storage.drafts.stack import StackEntry, shown
from ketch.storage.tree_copy import xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ketch.storage.drafts.draft import Draft
    from ketch.storage.drafts.metadata import FileMetadata
    from ketch.storage.drafts.stack import LayerStack, StackDescent

    Wanted = Callable[[str, Any], tuple[bool, bool, Any]]
    """Of a path and what was found for its directory (None: it is the first): whether it is copied, whether anything
    in it may be, and what was found."""

_LINK_REFUSED = (EMLINK, EPERM, EXDEV)


class CopyRules(NamedTuple):
    """The rules of a copy; None: as the source has it, and everything.

    ``wanted`` chooses; ``replace``: what is in the way goes, whatever it is; ``link``: the source never changes, so
    that its files can be linked.
    """

    owner: tuple[int, int] | None = None
    mode: Callable[[int], int] | None = None
    """Of a whole mode, the permissions; links have none."""
    time_ns: int | None = None
    wanted: Wanted | None = None
    replace: bool = False
    link: bool = True


_ALL = CopyRules()


class _Level:
    """A directory of the source, as long as it is walked."""

    __slots__ = ("created", "entries", "included", "name", "path", "state", "touched")

    def __init__(self, name: str, created: bool, *, included: bool = True, path: str = "", state: Any = None) -> None:
        self.entries: Iterator[tuple[str, int]] = iter(())
        self.name = name
        self.path = path  # for patterns, with a slash at its end; empty without them
        self.state = state  # of patterns
        self.included = included
        self.created = created
        self.touched = included  # whether something in it is copied


class TreeCopier:
    """One copy between a tree of layers and a draft.

    ``check`` is called for each entry, and what it raises ends the copy.
    """

    def __init__(
        self,
        draft: Draft,
        source: LayerStack,
        rules: CopyRules = _ALL,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._draft, self._source, self._rules, self._check = draft, source, rules, check
        self._wanted, self._replace = rules.wanted, rules.replace
        self._bytes = ByteCopier(check)
        self._linkable = [rules.link] * len(source.fds)
        self._all_stay = rules.link and rules[:4] == _ALL[:4]
        self._origins = [object() for _ in source.fds]  # of links that this copy makes, by layer
        self._copied: dict[tuple[int, int], tuple[str, ...]] = {}  # files with several names: the first copy
        self._target: tuple[str, ...] = ()
        self._levels: list[_Level] = []

    def copy(self, source: Sequence[str], target: Sequence[str]) -> None:
        """Copy an entry, by resolved names, to another name in a directory that exists.

        KetchError: it cannot be; OSError: the system refuses.
        """
        self._origins = [object() for _ in self._origins]
        self._copied.clear()
        self._levels.clear()
        self._target = tuple(target)
        with self._source.walk() as at, DraftPlace(self._draft) as place:
            for name in source[:-1]:
                if not at.enter(name):
                    raise NotADirectoryError(20, "not a directory", shown(source))
            for name in target[:-1]:
                place.enter(name)
            found = at.find(source[-1]) if source else None
            if source and found is None:
                raise FileNotFoundError(2, "no such file or directory", shown(source))
            if found and not stat.S_ISDIR(found.status.st_mode):
                self._file(found, source[-1], place, target[-1])
                return
            if source:
                at.enter(source[-1])
            created = bool(target) and self._enter(place, target[-1], included=True)
            self._levels.append(_Level("", created))
            self._walk(at, place)

    def _enter(self, place: DraftPlace, name: str, *, included: bool) -> bool:
        """Enter the target's directory for one of the source; returns whether it is a new one."""
        found = place.find(name)
        if found and stat.S_ISDIR(found.st_mode):
            place.enter(name)
            return False
        refused = ""
        if found and self._replace and included:
            place.remove(name)
        elif found:
            refused = f"cannot copy to non-directory: {self._shown(name)}"
            if included:
                raise InvalidArgument(refused)
        place.enter_new(name, refused=refused)
        if included:
            place.make()
        return True

    # -- directories -----------------------------------------------------------------------------

    def _walk(self, at: StackDescent, place: DraftPlace) -> None:
        """Copy everything in two walks' present directories."""
        levels = self._levels
        if not at.empty:
            levels[0].entries = self._entries(at, place)
        while True:
            level = levels[-1]
            item = next(level.entries, None)
            if item is not None:
                self._check()
                self._entry(at, place, *item)
                continue
            self._end(at, place, level, outermost=len(levels) == 1)
            if len(levels) == 1:
                return
            levels.pop()
            at.leave()
            place.leave()

    def _entry(self, at: StackDescent, place: DraftPlace, name: str, layer: int) -> None:
        """Copy one entry; a directory is entered."""
        level = self._levels[-1]
        included, path, state = True, "", None
        if self._wanted:
            path = level.path + name
            included, inside, state = self._wanted(path, level.state)
            if not included and not inside:
                return
        fd = at.layer_fd(layer)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if included:
                self._touch()
            created = self._enter(place, name, included=included)
            at.enter(name)
            below = _Level(name, created, included=included, path=f"{path}/" if path else "", state=state)
            self._levels.append(below)
            below.entries = self._entries(at, place)
        elif included and not is_whiteout(status) and not stat.S_ISSOCK(status.st_mode):
            self._touch()
            self._file(StackEntry(layer, fd, status), name, place, name)

    def _entries(self, at: StackDescent, place: DraftPlace) -> Iterator[tuple[str, int]]:
        """The entries of a directory that was entered, but for the files that need only be linked: they are."""
        layer = at.only_layer
        if layer is None or not self._all_stay or not self._linkable[layer] or not place.bare:
            return iter(at.entries())
        return iter(trees.in_order([(name, layer) for name in self._link_files(at.layer_fd(layer), layer, place)]))

    def _link_files(self, fd: int, layer: int, place: DraftPlace) -> list[str]:
        """Link the files of a directory, and return the names of all that has to be looked at more closely."""
        files, others = [], []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    files.append((entry.name, entry.inode()))
                else:
                    others.append(entry.name)
        if not files:
            return others
        name, inode = files[0]
        if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino != inode:  # as an overlay may tell it
            return [*others, *(name for name, _ in files)]
        self._touch()
        target_fd, linked, origin = place.make(), self._draft.linked, self._origins[layer]
        for name, inode in files:
            self._check()
            if inode in linked or (layer, inode) in self._copied:
                others.append(name)
                continue
            try:
                os.link(name, name, src_dir_fd=fd, dst_dir_fd=target_fd, follow_symlinks=False)
            except OSError as e:
                if e.errno not in (EEXIST, *_LINK_REFUSED):
                    raise
                others.append(name)
            else:
                linked[inode] = origin
        return others

    def _touch(self) -> None:
        """Note that something in the present directory is copied."""
        for level in reversed(self._levels):
            if level.touched:
                return
            level.touched = True

    def _end(self, at: StackDescent, place: DraftPlace, level: _Level, *, outermost: bool) -> None:
        """Give a target's directory what its source has, after all that was put into it."""
        if not level.touched or at.empty:
            return
        if level.created:
            self._changed(of_directory(at.fd), stat.S_IFDIR).set_on(place.make())
        elif outermost:
            wanted = self._changed(of_directory(at.fd), stat.S_IFDIR)
            if place.metadata().mtime_ns != wanted.mtime_ns:
                os.utime(place.make(), ns=(wanted.atime_ns, wanted.mtime_ns))
        elif level.included:
            wanted = self._changed(of_directory(at.fd), stat.S_IFDIR)
            if place.metadata()._replace(atime_ns=0) != wanted._replace(atime_ns=0):
                wanted.set_on(place.make())
        else:
            os.chmod(place.make(), stat.S_IMODE(os.fstat(at.fd).st_mode))

    def _changed(self, metadata: FileMetadata, kind: int) -> FileMetadata:
        """The metadata of a source's entry, changed as asked for."""
        rules = self._rules
        if rules.owner:
            metadata = metadata._replace(uid=rules.owner[0], gid=rules.owner[1])
        if rules.mode and kind != stat.S_IFLNK:
            metadata = metadata._replace(mode=rules.mode(kind | metadata.mode))
        if rules.time_ns is not None:
            metadata = metadata._replace(atime_ns=rules.time_ns, mtime_ns=rules.time_ns)
        return metadata

    # -- everything else -------------------------------------------------------------------------

    def _file(self, found: StackEntry, name: str, place: DraftPlace, to: str) -> None:
        """Copy what is no directory."""
        target_fd = place.make()
        if not place.bare:
            self._make_room(place, to)
        try:
            self._put(found, name, target_fd, to)
        except FileExistsError:
            self._make_room(place, to)
            self._put(found, name, target_fd, to)

    def _make_room(self, place: DraftPlace, name: str) -> None:
        """Remove what has a file's name, unless it is a directory that may not be replaced."""
        found = place.find(name)
        if found and stat.S_ISDIR(found.st_mode):
            if not self._replace:
                raise InvalidArgument(f"cannot replace to directory {self._shown(name)} with file")
            place.remove(name)
        place.clear(name)

    def _put(self, found: StackEntry, name: str, target_fd: int, to: str) -> None:
        """Link or copy a file to a name that does not exist (FileExistsError)."""
        status = found.status
        if self._linkable[found.layer] and self._stays(status) and self._link(found, name, target_fd, to):
            return
        key = (found.layer, status.st_ino)
        if status.st_nlink > 1 and (first := self._copied.get(key)):
            self._link_again(first, target_fd, to)
            return
        if stat.S_ISREG(status.st_mode):
            self._copy_file(found, name, target_fd, to)
        else:
            self._copy_special(found, name, target_fd, to)
        if status.st_nlink > 1:
            self._copied[key] = self._path(to)

    def _stays(self, status: os.stat_result) -> bool:
        """Whether a file can be linked because nothing of it changes."""
        if stat.S_ISFIFO(status.st_mode):
            return False  # one that is shared might connect what has nothing to do with each other
        owner, mode, time_ns = self._rules[:3]
        if owner is not None and owner != (status.st_uid, status.st_gid):
            return False
        if time_ns is not None and time_ns != status.st_mtime_ns:
            return False
        if mode is None or stat.S_ISLNK(status.st_mode):
            return True
        return mode(status.st_mode) == stat.S_IMODE(status.st_mode)

    def _link(self, found: StackEntry, name: str, target_fd: int, to: str) -> bool:
        """Make a file a hard link of the layer's; False: it has to be copied."""
        inode, origin = found.status.st_ino, self._origins[found.layer]
        if self._draft.linked.get(inode, origin) is not origin:
            return False  # the draft has it by another name, of which it is to be no link
        if (found.layer, inode) in self._copied:
            return False  # its first name was copied
        try:
            os.link(name, to, src_dir_fd=found.dir_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _LINK_REFUSED:
                raise
            self._linkable[found.layer] = e.errno == EMLINK  # of this file alone
            return False
        self._draft.linked[inode] = origin
        return True

    def _link_again(self, first: Sequence[str], target_fd: int, to: str) -> None:
        """Link a file to another name of the draft."""
        with self._draft.at(first[:-1]) as place:
            os.link(first[-1], to, src_dir_fd=place.make(), dst_dir_fd=target_fd, follow_symlinks=False)

    def _copy_file(self, found: StackEntry, name: str, target_fd: int, to: str) -> None:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        from_fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=found.dir_fd)
        try:
            to_fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target_fd)
            try:
                status = os.fstat(from_fd)
                self._bytes.copy(from_fd, to_fd, status)
                self._changed(metadata_of(status, open_xattrs(from_fd)), stat.S_IFREG).set_on(to_fd)
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)

    def _copy_special(self, found: StackEntry, name: str, target_fd: int, to: str) -> None:
        kind = stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=found.dir_fd), to, dir_fd=target_fd)
        else:
            os.mknod(to, kind | 0o600, found.status.st_rdev, dir_fd=target_fd)
        metadata = metadata_of(found.status, xattrs(f"/proc/self/fd/{found.dir_fd}/{name}"))
        self._changed(metadata, kind).set_by_name(target_fd, to, kind)

    def _path(self, name: str) -> tuple[str, ...]:
        """The names of an entry of the target's present directory."""
        if not self._levels:
            return self._target
        return (*self._target, *(level.name for level in self._levels[1:]), name)

    def _shown(self, name: str) -> str:
        return shown(self._path(name))
