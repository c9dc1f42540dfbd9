"""The path rules of ``docker cp``: what a trailing ``/`` or ``/.`` means, and which names the copy gets.

SRC           DEST is missing                      DEST is a file     DEST is a directory
file          called DEST (error if DEST ends in /)   replaced        copied into it
directory     made, gets SRC's content             an error           SRC is copied into it, of SRC/. the content
"""

from __future__ import annotations

import os
import posixpath

from ketch.errors import InvalidArgument, NotFound

MODE_DIR, MODE_LINK = 1 << 31, 1 << 27  # of Go's os.FileMode
_REGULAR = ~(MODE_DIR | 0o777 | 1 << 20 | 1 << 22 | 1 << 23)


class CopyPath:
    """An end of a copy; ``rebase`` is the name that an entry gets when a link was followed under another one."""

    def __init__(self, path: str, *, exists: bool = False, directory: bool = False, rebase: str = "") -> None:
        self.path = path
        self.exists = exists
        self.directory = directory
        self.rebase = rebase


def split_argument(text: str) -> tuple[str, str]:
    """(container, path); the container is empty for a local path."""
    if text.startswith("/"):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text  # ./file:with:colons
    return container, path


def is_current(path: str) -> bool:
    """Whether a path's last name is ``.``."""
    return path.rstrip("/").rpartition("/")[2] == "."


def keep_ending(cleaned: str, original: str) -> str:
    """A cleaned path with the ``/`` or ``/.`` that the original has at its end."""
    if is_current(original) and not is_current(cleaned):
        cleaned = cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def clean(path: str) -> str:
    """A path without double slashes, ``..`` and a slash at its end."""
    normal = posixpath.normpath(path) if path else "."
    return "/" + normal.lstrip("/") if normal.startswith("//") else normal


def base(path: str) -> str:
    """The last name."""
    return path.rstrip("/").rpartition("/")[2] or ("/" if path else ".")


def split_entry(path: str) -> tuple[str, str]:
    """(directory, last name); ``a/.`` is (``a``, ``.``)."""
    cleaned = clean(path)
    if is_current(path):
        return cleaned, "."
    return posixpath.dirname(cleaned) or ".", base(cleaned)


def rebased(path: str, resolved: str) -> tuple[str, str]:
    """(where a followed link leads, with the ending that was typed, and the name that the copy keeps)."""
    resolved = keep_ending(resolved, path)
    return resolved, base(path) if base(path) != base(resolved) else ""


def local_source(path: str, follow: bool) -> CopyPath:
    """The local source of a copy (NotFound)."""
    path = keep_ending(os.path.abspath(path), path)
    rebase = ""
    try:
        if follow:
            path, rebase = rebased(path, os.path.realpath(path, strict=True))
        else:
            directory, _, name = path.rpartition("/")
            path = os.path.join(os.path.realpath(directory or "/", strict=True), name)
        status = os.lstat(path)
    except OSError as e:
        raise NotFound(f"lstat {path}: {(e.strerror or '').lower()}") from e
    return CopyPath(path, exists=True, directory=status.st_mode & 0o170000 == 0o040000, rebase=rebase)


def local_destination(path: str) -> CopyPath:
    """The local destination of a copy; links are followed, and its directory must exist."""
    path = keep_ending(os.path.abspath(path), path)
    if os.path.lexists(path) or os.path.lexists(path.rstrip("/")):
        path = keep_ending(os.path.realpath(path), path)
    parent = split_entry(path)[0]
    if not os.path.isdir(parent):
        raise InvalidArgument(f'invalid output path: directory "{parent}" does not exist')
    if not os.path.lexists(path):
        if os.path.lexists(path.rstrip("/")):
            raise InvalidArgument(f'invalid output path: "{path}" is not a directory')
        return CopyPath(path)
    if not os.path.isdir(path) and not os.path.isfile(path):
        raise InvalidArgument(f'invalid output path: "{path}" must be a directory or a regular file')
    return CopyPath(path, exists=True, directory=os.path.isdir(path))


def check_remote(path: str, mode: int) -> None:
    """Raise InvalidArgument for a destination that is neither directory nor regular file (a Go mode)."""
    if mode & _REGULAR & ~MODE_LINK:
        raise InvalidArgument(f"destination `{path}` must be a directory or a regular file")


def plan(source: CopyPath, destination: CopyPath) -> tuple[str, tuple[str, str] | None]:
    """(the directory to extract to, and the old and new first name of the entries)."""
    directory, name = split_entry(destination.path)
    old = source.rebase or split_entry(source.path)[1]
    if destination.exists and destination.directory:
        return destination.path, None
    if destination.exists and source.directory:
        raise InvalidArgument("cannot copy directory", hint=f"`{destination.path}` is a file")
    if not destination.exists and not source.directory and destination.path.endswith(("/", "/.")):
        raise NotFound("no such directory", hint=f"make `{destination.path}` first")
    return directory, (old, name)


def renamed(name: str, change: tuple[str, str] | None) -> str:
    """An entry's name after ``plan``'s change; entries from ``/`` begin with a slash."""
    if change is None:
        return name
    old = "" if change[0] == "/" else change[0]
    return change[1] + name[len(old) :] if name == old or name.startswith((old + "/", "/")) else name
