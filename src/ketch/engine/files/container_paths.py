"""Path resolution of ``docker cp`` in a view of a container's files.

A trailing ``/`` or ``/.`` asks for a directory and follows a link to one; without it the last name is taken as it
is, a symbolic link included, and the client decides what to do about it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from errno import EINVAL, ELOOP, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

from ketch.engine.model.path_stat import PathStat
from ketch.errors import InvalidArgument, NotFound, UnclassifiedArgument
from ketch.runtime.rootfs import paths
from ketch.storage.archive.write import write_directory, write_entry

if TYPE_CHECKING:
    from typing import IO

    from ketch.engine.model.namespaces.user import UserNamespace

_MAX_LINKS = 255
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def absolute(path: str) -> str:
    """A path from the container's root, without ``..`` and double slashes; a ``/`` or ``/.`` at its end stays."""
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: there is a NUL in the path")
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if path.rstrip("/").rpartition("/")[2] == ".":
        cleaned = cleaned.rstrip("/") + "/."
    if path.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def base(path: str) -> str:
    """The last name of an `absolute` path; ``/`` for the root, ``.`` behind ``/.``."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def wants_directory(path: str) -> bool:
    """Whether an `absolute` path says that it is a directory's."""
    return path.endswith(("/", "/."))


def is_directory(fd: int) -> bool:
    """Whether a descriptor is a directory's."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


class Located:
    """An existing file, ``entry`` in ``parent_fd``; the caller closes it.

    A directory that was asked for as such has no entry and is ``parent_fd`` itself.
    """

    def __init__(self, root_fd: int, path: str, who: str, owners: UserNamespace | None = None) -> None:
        self._owners = owners
        self.path = path
        self.entry = "" if wants_directory(path) else base(path)
        parent = path if wants_directory(path) else posixpath.dirname(path)
        try:
            self.parent_fd = paths.open_in(root_fd, parent, paths.O_PATH | os.O_DIRECTORY)
        except OSError as e:
            raise explain(e, path, who) from e
        try:
            self.status = self._look()
            self.stat = PathStat(base(path), self.status, self._target(root_fd))
        except OSError as e:
            self.close()
            raise explain(e, path, who) from e

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.parent_fd)

    def _look(self) -> os.stat_result:
        if not self.entry:
            return os.fstat(self.parent_fd)
        return os.stat(self.entry, dir_fd=self.parent_fd, follow_symlinks=False)

    def _target(self, root_fd: int) -> str:
        return follow(root_fd, self.path) if stat.S_ISLNK(self.status.st_mode) else ""

    def write(self, target: IO[bytes]) -> None:
        """Write the file as a tar stream under the path's last name; entries of the root begin with ``/``."""
        name = base(self.path)
        if self.entry and not stat.S_ISDIR(self.status.st_mode):
            write_entry(self.parent_fd, self.entry, name, target, self._owners)
            return
        fd = os.open(self.entry or ".", _READ | os.O_NOFOLLOW, dir_fd=self.parent_fd)
        try:
            write_directory(fd, "" if name == "/" else name, target, self._owners)
        finally:
            os.close(fd)


def follow(root_fd: int, path: str) -> str:
    """Resolve all symbolic links of a path within the root; missing components are kept as written."""
    current = "/"
    parts = [part for part in path.split("/") if part and part != "."]
    links = 0
    while parts:
        name = parts.pop(0)
        if name == "..":
            current = posixpath.dirname(current)
            continue
        here = posixpath.join(current, name)
        try:
            target = _link(root_fd, here)
        except (FileNotFoundError, NotADirectoryError):
            return posixpath.normpath(posixpath.join(here, *parts))
        if target is None:
            current = here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP), path)
        parts[:0] = [part for part in target.split("/") if part and part != "."]
        current = "/" if target.startswith("/") else current
    return current


def _link(root_fd: int, path: str) -> str | None:
    """The target of a link, None for anything else."""
    fd = paths.open_in(root_fd, path, paths.O_PATH | os.O_NOFOLLOW)
    try:
        return os.readlink("", dir_fd=fd)
    except OSError as e:
        if e.errno in (EINVAL, ENOENT):  # readlinkat(2) on what is no link
            return None
        raise
    finally:
        os.close(fd)


def explain(error: OSError, path: str, who: str) -> Exception:
    """The error of a failed look-up, in Docker's words."""
    if error.errno == ENOENT:
        return NotFound(f"Could not find the file {path} in container {who}")
    if error.errno == ENOTDIR:
        return UnclassifiedArgument(f"lstat {path}: not a directory (in container {who})")
    if error.errno == ELOOP:
        return UnclassifiedArgument(f"evalSymlinksInScope: too many links in {path} (in container {who})")
    return error
