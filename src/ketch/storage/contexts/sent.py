"""Entries of a directory that a client sends: what each says, which lists are refused, and by what a change shows."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from ketch.storage.contexts.fill import Row

_LONGEST = 4095  # bytes of a path
_MOST = 1_000_000  # entries of a directory
_MOST_BYTES = 128 << 20  # of all paths, links and extended attributes together
_LONGEST_NAME, _LARGEST = 255, 64 << 10  # bytes of an extended attribute's name and value
_KINDS = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK))
_OWNERS = range((1 << 32) - 1)


class SentEntry(NamedTuple):
    """A file, directory, link or node, as a client tells of it.

    ``mode`` is that of stat(2), ``link`` the target of a symbolic link, or of a regular file the path of an earlier
    entry that is the same file; ``device`` is a node's number.
    """

    path: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()

    def row(self) -> Row:
        """The entry as copies are noted: two rows that are equal are of the same file, unchanged.

        The time stands twice: for a client's directory nothing else tells of a change.
        """
        path, mode, size, mtime_ns, uid, gid, link, device, attributes = self
        details = _digest(link, device, attributes) if link or device or attributes else 0
        return path, mode, 0 if stat.S_ISDIR(mode) else size, mtime_ns, mtime_ns, uid << 32 | gid, details


def _digest(link: str, device: int, attributes: tuple[tuple[str, bytes], ...]) -> int:
    """A number for what few entries have."""
    found = hashlib.blake2b(digest_size=8)
    for piece in (
        os.fsencode(link),
        b"%d" % device,
        *(part for name, value in attributes for part in (os.fsencode(name), value)),
    ):
        found.update(b"%d:" % len(piece))
        found.update(piece)
    return int.from_bytes(found.digest(), "big")


class SentOrder:
    """The check of a list as it comes: each path once, below directories of the list, in the order of a walk.

    That is the order of the paths' parts, as bytes.  So whoever makes one entry after the other never meets a link
    or a file where a directory should be.  A list is as long as memory allows: a million entries.
    """

    def __init__(self) -> None:
        self._last = b""
        self._way = [""]  # the directories from the first one to that of the last entry
        self._count = self._bytes = 0

    def check(self, one: SentEntry) -> None:
        """InvalidArgument: the entry cannot be the next one; ResourceExhausted: there are too many."""
        path = one.path
        raw = os.fsencode(path)
        bounded = f"/{path}/"
        no_name = "//" in bounded or "/./" in bounded or "/../" in bounded
        if no_name or not path or "\0" in path or len(raw) > _LONGEST:
            raise _refused(path, "it is no path below it")
        key = raw.replace(b"/", b"\0")
        if key <= self._last:
            raise _refused(
                path, f"it comes out of order, after {os.fsdecode(self._last)[:200]!r}".replace("\\x00", "/")
            )
        self._last = key
        self._within(path)
        _check_kind(one)
        self._count += 1
        self._bytes += len(raw) + len(one.link) + (_size_of_attributes(one) if one.attributes else 0)
        if self._count > _MOST or self._bytes > _MOST_BYTES:
            raise ResourceExhausted(
                f"the build context has more than {_MOST} files, "
                f"or paths and extended attributes of more than {_MOST_BYTES >> 20} MiB",
                hint="name what the build does not need in .dockerignore",
            )
        if stat.S_ISDIR(one.mode):
            self._way.append(path)

    def _within(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        way = self._way
        while way[-1] != parent:
            way.pop()
            if not way:
                raise _refused(path, "its directory is not in the list")


def _check_kind(one: SentEntry) -> None:
    """InvalidArgument: nothing like that can be in a layer."""
    kind = stat.S_IFMT(one.mode)
    if kind not in _KINDS:
        raise _refused(one.path, f"its mode {one.mode:o} is of no kind of file")
    if kind == stat.S_IFCHR and one.device == 0:
        raise InvalidArgument(
            f"`{one.path[:200]}` in the build context: a character device 0:0 cannot be in a layer",
            hint="overlay file systems take it for a file that was removed; name it in .dockerignore",
        )
    if kind == stat.S_IFLNK and (not one.link or "\0" in one.link or len(os.fsencode(one.link)) > _LONGEST):
        raise _refused(one.path, "it is a link without a target that can be")
    if one.size < 0 or one.uid not in _OWNERS or one.gid not in _OWNERS:
        raise _refused(one.path, f"its size {one.size} or its owner {one.uid}:{one.gid} cannot be")


def _size_of_attributes(one: SentEntry) -> int:
    """The bytes of an entry's extended attributes (InvalidArgument: the kernel knows none like these)."""
    size = 0
    for name, value in one.attributes:
        raw = os.fsencode(name)
        if not raw or b"\0" in raw or len(raw) > _LONGEST_NAME or len(value) > _LARGEST:
            raise _refused(one.path, f"its extended attribute {name[:200]!r} of {len(value)} bytes cannot be")
        size += len(raw) + len(value)
    return size


def _refused(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"{path[:200]!r} in the build context: {why}", hint="the client does not send a directory as it should"
    )
