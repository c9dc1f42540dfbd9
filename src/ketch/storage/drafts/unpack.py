"""Archives unpacked into a draft: members replace what the tree has, directories are merged.

Links that are met on the way lead within the directory that is unpacked into, as with Docker, which changes its root
to it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.storage import overlay_notes, ownership
from ketch.storage.archive import compression, tar
from ketch.storage.archive.extract import Extractor
from ketch.storage.archive.limits import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.storage.archive.tar import Member, Source
    from ketch.storage.drafts.draft import Draft


def is_archive(fd: int) -> bool:
    """Whether an open file is a tar, compressed or not, with at least one member; its offset is at the start then."""
    try:
        with open(os.dup(fd), "rb", buffering=0) as file, compression.reader(file, "archive") as plain:
            return next(iter(tar.TarReader(plain)), None) is not None
    except InvalidArgument:
        return False
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def unpack(
    draft: Draft,
    target: Sequence[str],
    fd: int,
    owner: tuple[int, int] | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Unpack an open archive into a directory that exists, by its resolved names; ``owner``: of all that is unpacked.

    ``check`` is called now and then, and what it raises ends it (InvalidArgument: broken; ResourceExhausted: full).
    """
    with open(os.dup(fd), "rb", buffering=0) as file, compression.reader(file, "archive") as plain:
        source = Guard(_Checked(plain, check), draft.upper_fd, "unpack archive")
        _DraftExtractor(draft, target, owner).run(tar.TarReader(source))


class _Checked:
    """A stream that checks at each piece whether it is still wanted."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        self._source, self._check = source, check

    def read(self, size: int = -1, /) -> bytes:
        """The next piece."""
        self._check()
        return self._source.read(size)


class _DraftExtractor(Extractor):
    def __init__(self, draft: Draft, target: Sequence[str], owner: tuple[int, int] | None) -> None:
        super().__init__(draft.upper_fd, layer=False)
        self._draft, self._target, self._all_owner = draft, tuple(target), owner

    def _names(self, path: str) -> tuple[str, ...]:
        return (*self._target, *self._draft.merged.resolve(path, root=self._target))

    def _open(self, path: str, flags: int) -> int:
        del flags
        with self._draft.at(self._names(path)) as place:
            return os.dup(place.make())

    def _open_near(self, path: str, flags: int) -> int:
        return self._open(path, flags)

    def _make_parents(self, path: str) -> int:
        names = self._names(path)
        self._draft.make_directories(names, 0o755, self._all_owner)
        with self._draft.at(names) as place:
            return os.dup(place.make())

    def _root(self, member: Member) -> None:
        """The directory that is unpacked into stays as it is."""

    def _directory(self, member: Member, path: str, dir_fd: int, name: str) -> None:
        try:
            replaced = not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            replaced = False
        super()._directory(member, path, dir_fd, name)
        if replaced:  # what the file or the whiteout had hidden stays hidden
            os.setxattr(f"/proc/self/fd/{dir_fd}/{name}", overlay_notes.OPAQUE, b"y")

    def _hard_link(self, member: Member, dir_fd: int, name: str) -> None:
        directory, _, source = self._clean(member.linkname, "hard link").rpartition("/")
        with self._draft.merged.walk() as at:
            for part in self._names(directory):
                at.enter(part)
            found = at.find(source)
            if found is None:
                raise FileNotFoundError(2, "no such file", member.linkname)
            if source == name and os.path.samestat(os.fstat(found.dir_fd), os.fstat(dir_fd)):
                return
            self._clear(dir_fd, name)
            os.link(source, name, src_dir_fd=found.dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            if found.layer:
                self._draft.linked[found.status.st_ino] = self
        if found.status.st_ino not in self._draft.linked:  # as Docker: what the link says counts for the file
            self._finish_link(member, dir_fd, name, found.status)

    def _finish_link(self, member: Member, dir_fd: int, name: str, former: os.stat_result) -> None:
        if (former.st_uid, former.st_gid) != self._owner(member):  # which takes its capabilities
            ownership.give(name, *self._owner(member), dir_fd)
        if not stat.S_ISLNK(former.st_mode):
            os.chmod(name, member.mode, dir_fd=dir_fd)
        os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _node(self, member: Member, dir_fd: int, name: str) -> None:
        if member.kind == tar.CHAR and (member.major, member.minor) == (0, 0):
            raise InvalidArgument(f"extract `{member.name}`: character device 0:0 in archive refused")
        super()._node(member, dir_fd, name)

    def _owner(self, member: Member) -> tuple[int, int]:
        return self._all_owner or (member.uid, member.gid)
