"""Digests of the files of a tree that does not change: of what a file is and what is in it, not of its times.

The digest of a file is BuildKit's (cache/contenthash): of a header as old versions of tarsum wrote it, without name and
time, and of the content.  That of a directory is of its own header and of the names and digests of what is in it, in
order of their bytes.  Trees are read by descriptor, and no link leads out of one.  What is kept in memory is a bounded
table of files that were read: one whose inode says that it has not changed is not read again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
import time
from collections import deque
from errno import ELOOP, ENOENT, ENOTDIR, EOPNOTSUPP
from typing import TYPE_CHECKING, TypeAlias

from ketch import trees
from ketch.errors import DataLoss, InvalidArgument
from ketch.linux.nodes import birth_ns
from ketch.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from ketch.storage import overlay_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future, ThreadPoolExecutor

Digest: TypeAlias = "str | Future[str]"
"""A digest, or what will be one when another thread has read the file."""

NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()

_MOST_FILES = 1 << 17  # in a table: some 35 MB
_BIG = 256 << 10  # bytes of a file that another thread reads
_PIECE = 1 << 20
_READ_AHEAD = 16  # big files that are open at once
_SETTLED = (
    50_000_000  # ns after which a further change of a file has another time, however coarse the kernel's clock is
)
_IDENTITY = struct.Struct("<QQQqqIII")
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {stat.S_IFLNK: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFDIR: 5, stat.S_IFIFO: 6}  # as tar has them


class FileTable:
    """A bounded table of files' digests by inode, for many threads; the oldest go first."""

    def __init__(self, most: int = _MOST_FILES) -> None:
        self._most = most
        self._found: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, identity: bytes) -> str | None:
        """The digest of a file that has not changed since it was put here."""
        found = self._found.get(identity)
        return None if found is None else f"sha256:{found.hex()}"

    def put(self, identity: bytes, digest: str) -> None:
        """Keep a digest."""
        with self._lock:
            self._found[identity] = bytes.fromhex(digest.partition(":")[2])
            if len(self._found) > self._most:
                del self._found[next(iter(self._found))]


def identity_of(directory_fd: int, name: str, status: os.stat_result) -> bytes | None:
    """The identity of a file in a tree that never changes; None: it cannot be told from others for certain.

    It does not change when somebody makes a hard link of the file, as the time of its last change does: that time is
    taken where the file system does not keep when an inode was made, and then not of files that changed a moment ago.
    A number is used for another file when the first one is gone.  Mounts for a moment have no device of their own.
    """
    since = birth_ns(directory_fd, os.fsencode(name))
    if since is None:
        since = status.st_ctime_ns
        if time.time_ns() - since < _SETTLED:
            return None
    device = status.st_dev if os.major(status.st_dev) else 0
    numbers = (device, status.st_ino, status.st_size, since, status.st_mtime_ns)
    return _IDENTITY.pack(*numbers, status.st_mode, status.st_uid, status.st_gid)


class DigestSequence:
    """A digest of texts and digests in their order, of which some are not there yet."""

    def __init__(self, start: bytes = b"") -> None:
        self._hash = hashlib.sha256(start)
        self._waiting: deque[tuple[bytes, Digest]] = deque()

    def add(self, text: bytes, digest: Digest) -> None:
        """Add a text, and a digest behind it."""
        if self._waiting or not isinstance(digest, str):
            self._waiting.append((text, digest))
            while self._waiting and _is_there(self._waiting[0][1]):
                self._next()
        else:
            self._hash.update(text + digest.encode())

    def digest(self) -> str:
        """The digest of all; waits for those that are not there yet."""
        while self._waiting:
            self._next()
        return f"sha256:{self._hash.hexdigest()}"

    def _next(self) -> None:
        text, digest = self._waiting.popleft()
        self._hash.update(text + now(digest).encode())


def _is_there(digest: Digest) -> bool:
    return isinstance(digest, str) or digest.done()


def now(digest: Digest) -> str:
    """A digest; waits when it is not there yet."""
    return digest if isinstance(digest, str) else digest.result()


class TreeDigests:
    """Digests within one open tree.  Blocking.

    ``check`` is called now and then, also by the threads of ``readers``; what it raises ends the work.
    ``root_header`` takes the place of the digest of the root directory itself, without its content.  ``directories``
    has digests of directories by their paths in the tree, which are not looked into, and gets those that are made.
    """

    def __init__(
        self,
        root_fd: int,
        table: FileTable,
        readers: ThreadPoolExecutor,
        check: Callable[[], None] = lambda: None,
        root_header: str | None = None,
        directories: dict[str, str] | None = None,
    ) -> None:
        self._root_fd = root_fd
        self._root = os.fstat(root_fd)
        self._table = table
        self._readers = readers
        self._check = check
        self._root_header = root_header
        self._directories = directories
        self._slots = threading.Semaphore(_READ_AHEAD)

    def open(self, path: str, *, follow: bool) -> int | None:
        """A descriptor of what is at an absolute path: a directory, or anything else without access (O_PATH).

        None: nothing is there.  Links on the way lead within the tree; ``follow``: one at the end, too
        (InvalidArgument: they lead in a circle).
        """
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        try:
            fd = openat2(self._root_fd, path.lstrip("/") or ".", flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR):
                return None
            if e.errno == ELOOP:
                raise InvalidArgument(f"{path}: too many links", hint="links lead in a circle") from None
            raise
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            return fd
        try:
            return os.open(".", trees.DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)

    def whole(self, fd: int, path: str) -> str:
        """The digest of what `open` gave for a path: of a directory with everything in it."""
        status = os.fstat(fd)
        if not stat.S_ISDIR(status.st_mode):
            return now(self.file(fd, "", status))
        inside = path.strip("/")
        if self._directories is None or not self._is_plain(inside):
            return self._directory(fd, "", {})
        return self._directories.get(inside) or self._directory(fd, inside and f"{inside}/", self._directories)

    def _is_plain(self, path: str) -> bool:
        """Whether no link is on the way to a path."""
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        try:
            os.close(openat2(self._root_fd, path or ".", os.O_PATH, 0, resolve))
        except OSError as e:
            if e.errno != ELOOP:
                raise
            return False
        return True

    def _directory(self, fd: int, prefix: str, known: dict[str, str]) -> str:
        """The digest of a directory; ``known`` are those of others, by paths that begin with ``prefix``."""
        levels = [DigestSequence(b"\0" + self.header(fd).encode())]
        with trees.Descent(fd) as at:
            for name in at.walk(names):
                if name is None:
                    inner = known[prefix + at.prefix[:-1]] = levels.pop().digest()
                    levels[-1].add(b"\0" + os.fsencode(at.name), inner)
                    continue
                status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    self._check()
                    if (below := known.get(prefix + at.prefix + name)) is not None:
                        levels[-1].add(b"\0" + os.fsencode(name), below)
                        continue
                    at.enter(name)
                    levels.append(DigestSequence(b"\0" + self.header(at.fd).encode()))
                elif not is_whiteout(status):
                    levels[-1].add(b"\0" + os.fsencode(name), self.file(at.fd, name, status))
        return levels[0].digest()

    def header(self, fd: int) -> str:
        """The digest of a directory itself, without what is in it."""
        status = os.fstat(fd)
        if self._root_header is not None and os.path.samestat(status, self._root):
            return self._root_header
        return _digest(_header(status, "", _xattrs(fd)))

    def file(self, directory_fd: int, name: str, status: os.stat_result) -> Digest:
        """The digest of an entry of a directory that is none; without a name, of what is open (O_PATH)."""
        identity = identity_of(directory_fd, name, status)
        if identity is not None and (known := self._table.get(identity)) is not None:
            return known
        if not stat.S_ISREG(status.st_mode):
            link = os.readlink(name, dir_fd=directory_fd) if stat.S_ISLNK(status.st_mode) else ""
            return self._kept(identity, _digest(_header(status, link, _xattrs(directory_fd, name))))
        self._check()
        if status.st_size <= _BIG:
            return self._read(_opened(directory_fd, name), status, identity)
        self._slots.acquire()
        try:
            fd = _opened(directory_fd, name)
        except BaseException:
            self._slots.release()
            raise
        return self._readers.submit(self._read_big, fd, status, identity)

    def _kept(self, identity: bytes | None, digest: str) -> str:
        if identity is not None:
            self._table.put(identity, digest)
        return digest

    def _read_big(self, fd: int, status: os.stat_result, identity: bytes | None) -> str:
        try:
            return self._read(fd, status, identity)
        finally:
            self._slots.release()

    def _read(self, fd: int, status: os.stat_result, identity: bytes | None) -> str:
        """The digest of an open file, which is closed."""
        try:
            found = hashlib.sha256(_header(status, "", _xattrs(fd)))
            left = status.st_size
            while left > 0:
                data = os.read(fd, min(left, _PIECE))
                if not data:
                    raise DataLoss("a file of a build became shorter while it was read")
                found.update(data)
                left -= len(data)
                if left:
                    self._check()
        finally:
            os.close(fd)
        return self._kept(identity, f"sha256:{found.hexdigest()}")


def names(fd: int) -> list[str]:
    """The names in an open directory, in order of their bytes."""
    return sorted(os.listdir(fd), key=os.fsencode)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry of a layer only hides what is below it."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _opened(directory_fd: int, name: str) -> int:
    if name:
        return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=directory_fd)
    return os.open(f"/proc/self/fd/{directory_fd}", _READ)


def _xattrs(fd: int, name: str | None = None) -> Mapping[str, bytes]:
    """The extended attributes of an open file, or of what is there by a name, which is not opened."""
    place: int | str = fd
    if name is not None:
        place = f"/proc/self/fd/{fd}/{name}" if name else f"/proc/self/fd/{fd}"
    follow = not name
    try:
        found = os.listxattr(place, follow_symlinks=follow)
        return {key: os.getxattr(place, key, follow_symlinks=follow) for key in found if _counts(key)} if found else {}
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        return {}


def _counts(key: str) -> bool:
    """Whether an extended attribute belongs to the file wherever it lies."""
    if key.startswith(("security.", "system.", "com.apple.", overlay_notes.PREFIX)):
        return key == "security.capability"
    return True


def _header(status: os.stat_result, link: str, xattrs: Mapping[str, bytes]) -> bytes:
    mode = status.st_mode
    kind = stat.S_IFMT(mode)
    size = status.st_size if kind == stat.S_IFREG else 0
    device = status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    text = (
        f"namemode{mode & 0o7777}uid{status.st_uid}gid{status.st_gid}size{size}typeflag{_TYPES.get(kind, 0)}"
        f"linkname{link}unamegnamedevmajor{os.major(device)}devminor{os.minor(device)}"
    )
    found = os.fsencode(text)
    for key in sorted(xattrs, key=os.fsencode):
        found += os.fsencode(key) + xattrs[key]
    return found


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
