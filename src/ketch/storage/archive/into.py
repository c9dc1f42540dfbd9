"""Extraction of an archive into a directory of a container, which may be running and hostile.

Whatever its processes do to the tree meanwhile, nothing outside the container is reached: each path is looked up
by the kernel below the container's root (openat2(2), RESOLVE_IN_ROOT), files are made anew (O_EXCL), and owners,
modes and times are set by descriptor.  So a link that is swapped in leads somewhere within the container, as it
would for the container's own processes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from errno import EDQUOT, ENOSPC, EROFS, EXDEV
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument, ResourceExhausted
from ketch.linux.caps import owner_of_files
from ketch.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, open_beneath, openat2
from ketch.storage.archive import tar
from ketch.storage.archive.extract import Extractor, relative
from ketch.storage.archive.owners import on_files

if TYPE_CHECKING:
    from ketch.storage.archive.owners import Owners
    from ketch.storage.archive.tar import Member, Source


def extract_into(source: Source, root_fd: int, path: str, directory_fd: int, *, replace: bool, whose: Ownership) -> int:
    """Unpack a plain tar into the directory ``path`` of the root, open as ``directory_fd``; returns bytes of files.

    Descriptors stay the caller's.  Without ``replace`` a directory and something else never take each other's place
    (InvalidArgument, in Docker's words).
    Raises InvalidArgument for a broken archive; what was written by then stays.
    """
    into = _Into(root_fd, path, directory_fd, replace, whose)
    if whose.owners is None:
        return into.run(tar.TarReader(source))
    # What is made on a mapped mount has to be one of the mapped users'.
    with owner_of_files(*whose.owners.outside(0, 0)):
        return into.run(tar.TarReader(source))


class Ownership(NamedTuple):
    """The rule by which files get owners: ``all_to`` one, or as the archive says; by the ids inside of ``owners``."""

    all_to: tuple[int, int] | None = None
    owners: Owners | None = None

    def of(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner of a file, for which the archive says so (InvalidArgument)."""
        inside = self.all_to or (uid, gid)
        return self.owners.outside(*inside) if self.owners is not None else inside


class _Into(Extractor):
    def __init__(self, root_fd: int, path: str, directory_fd: int, replace: bool, whose: Ownership) -> None:
        super().__init__(directory_fd, layer=False)
        self._container_fd = root_fd
        self._path = path
        self._replace = replace
        self._whose = whose

    def _open(self, path: str, flags: int) -> int:
        try:
            return open_beneath(self._root_fd, path, flags)
        except OSError as e:
            if e.errno != EXDEV:
                raise
        # A link leads out of the target, to another place of the container: as for the container itself.
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        return openat2(self._container_fd, f"{self._path}/{path}", flags, 0, resolve)

    def _clean(self, name: str, what: str = "path") -> str:
        path = relative(name)
        if path is None:
            what = "hardlink target" if what == "hard link" else "entry name"
            raise InvalidArgument(f'invalid {what} "{name}"', hint="it is outside of the target directory")
        return path

    def _root(self, member: Member) -> None:
        """Skip the archive's root: the target's own metadata stays."""

    def _member(self, archive: tar.TarReader, member: Member) -> None:
        if self._whose.owners is not None and member.xattrs:
            member.xattrs = on_files(member.xattrs, self._whose.owners)
        try:
            super()._member(archive, member)
        except OSError as e:
            if e.errno == EROFS:
                raise InvalidArgument(f"extract `{member.name}`: mounted volume is marked read-only") from e
            if e.errno in (ENOSPC, EDQUOT):
                raise ResourceExhausted(f"extract `{member.name}`: no space left on device") from e
            raise

    def _make_parent(self, dir_fd: int, name: str) -> None:
        super()._make_parent(dir_fd, name)
        if self._whose.all_to is not None:
            os.chown(name, *self._whose.of(0, 0), dir_fd=dir_fd, follow_symlinks=False)

    def _clear(self, dir_fd: int, name: str) -> None:
        if not self._replace and _is_directory(dir_fd, name):
            raise InvalidArgument(f'cannot overwrite directory "{self._shown(name)}" with non-directory "{self._path}"')
        super()._clear(dir_fd, name)

    def _directory(self, member: Member, path: str, dir_fd: int, name: str) -> None:
        if not self._replace and _is_directory(dir_fd, name) is False:
            raise InvalidArgument(f'cannot overwrite non-directory "{self._shown(name)}" with directory "{self._path}"')
        super()._directory(member, path, dir_fd, name)

    def _shown(self, name: str) -> str:
        return posixpath.join(self._parent if self._parent not in ("", "\0", ".") else "", name)

    def _owner(self, member: Member) -> tuple[int, int]:
        return self._whose.of(member.uid, member.gid)


def _is_directory(dir_fd: int, name: str) -> bool | None:
    """Whether a name is a directory; None when it does not exist."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None
