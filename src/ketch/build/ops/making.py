"""Actions of a file operation that make and remove: mkdir, mkfile, symlink, rm."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from ketch.build.ops.wildcards import matching
from ketch.errors import InvalidArgument, NotFound
from ketch.storage.drafts.metadata import of_directory
from ketch.storage.drafts.stack import names, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.llb import ops_pb2 as pb
    from ketch.storage.drafts.draft import Draft

    Owner = tuple[int, int] | None

KEEP = -1


def make_directory(draft: Draft, action: pb.FileActionMkDir, owner: Owner) -> None:
    """Make a directory; one that exists stays as it is."""
    path = draft.merged.resolve(action.path)
    if not action.makeParents:
        if not path or draft.merged.find(path) is not None:
            return
        _check_parent(draft, path, "mkdir")
    made = draft.make_directories(path, action.mode & 0o777, owner)
    if action.timestamp != KEEP:
        draft.set_times(made, action.timestamp)


def make_file(draft: Draft, action: pb.FileActionMkFile, owner: Owner) -> None:
    """Make a file; one that exists keeps its mode, and its owner unless one is given."""
    path = draft.merged.resolve(action.path)
    found = draft.merged.find(path)
    if not path or (found and stat.S_ISDIR(found.st_mode)):
        raise InvalidArgument(f"open {shown(path)}: is a directory")
    _check_parent(draft, path, "open")
    former_fd = draft.merged.open_file(path)
    former = None
    if former_fd is not None:
        try:
            former = of_directory(former_fd)
        finally:
            os.close(former_fd)
    with draft.at(path[:-1]) as place:
        place.clear(path[-1])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path[-1], flags, 0o600, dir_fd=place.make())
    with open(fd, "wb") as file:
        file.write(action.data)
        file.flush()
        mode = former.mode if former else action.mode & 0o777
        uid, gid = owner or ((former.uid, former.gid) if former else (0, 0))
        now = of_directory(fd)
        kept = former.xattrs if former else now.xattrs
        time = {} if action.timestamp == KEEP else {"atime_ns": action.timestamp, "mtime_ns": action.timestamp}
        now._replace(uid=uid, gid=gid, mode=mode, xattrs=kept, **time).set_on(fd)


def make_link(draft: Draft, action: pb.FileActionSymlink, owner: Owner) -> None:
    """Make a symbolic link where nothing is."""
    path = draft.merged.resolve(action.newpath)
    if not path or draft.merged.find(path) is not None:
        raise InvalidArgument(f"symlink {action.oldpath} {shown(path)}: file exists")
    _check_parent(draft, path, f"symlink {action.oldpath}")
    with draft.at(path[:-1]) as place:
        fd, name = place.make(), path[-1]
        place.clear(name)
        os.symlink(action.oldpath, name, dir_fd=fd)
        if owner:
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        if action.timestamp != KEEP:
            os.utime(name, ns=(action.timestamp, action.timestamp), dir_fd=fd, follow_symlinks=False)


def remove(draft: Draft, action: pb.FileActionRm) -> None:
    """Remove what a path, or its wildcards, name, with all that is in it; a link itself."""
    path = posixpath.normpath(posixpath.join("/", action.path))
    for one in matching(draft.merged, path, follow=False) if action.allowWildcard else [path]:
        _remove(draft, one, action.allowNotFound)


def _remove(draft: Draft, path: str, allow_missing: bool) -> None:
    parts = names(path)
    if not parts:
        raise InvalidArgument("rmPath: invalid empty path")
    directory = draft.merged.resolve("/".join(parts[:-1]))
    try:
        found = draft.merged.find([*directory, parts[-1]])
    except NotADirectoryError:
        found = None
    if found is None:
        if not allow_missing:
            raise NotFound(f"stat {path}: no such file or directory")
        return
    with draft.at(directory) as place:
        place.remove(parts[-1])


def _check_parent(draft: Draft, path: Sequence[str], what: str) -> None:
    """Raise NotFound when there is no directory for a new name."""
    parent = draft.merged.find(path[:-1]) if len(path) > 1 else None
    if len(path) > 1 and parent is None:
        raise NotFound(f"{what} {shown(path)}: no such file or directory")
    if parent and not stat.S_ISDIR(parent.st_mode):
        raise InvalidArgument(f"{what} {shown(path)}: not a directory")
