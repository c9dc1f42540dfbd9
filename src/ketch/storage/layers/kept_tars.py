"""Tars of layers with many small files, kept for the next layer that is almost the same.

    layers/<id>/tar.kept       the tar, which files are in it (inodes, places, sizes), and the length of that list

A layer that is made again after few files have changed has the others as hard links of the last one's.  What the tar
has of a file is decided by the path and the inode, which nothing writes to: it is taken from the last layer's tar as
long as that layer is here, since its inodes cannot have become other files then.  Nothing is synced: after a restart of
the machine none of it counts.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from ketch.storage.archive.layer import LayerWriter
from ketch.storage.archive.write import Gathered
from ketch.storage.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Write = Callable[[bytes | memoryview], object]
    Columns = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]

log = logging.getLogger(__name__)
_KEPT = "tar.kept"
_LENGTH = 8  # bytes of the length at the end
_DECODER: msgspec.msgpack.Decoder[tuple[str, int, bytes, tuple[list[int], list[int], list[int], list[int]]]] = (
    msgspec.msgpack.Decoder(tuple[str, int, bytes, tuple[list[int], list[int], list[int], list[int]]])
)
_LEAST_FILES = 1000
_MOST_A_FILE = 16 << 10  # bytes of the tar for each file
_FREE = 8 << 20  # bytes before the files count
_MOST_BYTES = 256 << 20  # of all that are kept
_SAMPLES = 8
_PIECE = 1 << 20


class _TarIndex:
    """The files in a layer's tar, in its order: where their headers and contents begin, how many bytes these are."""

    def __init__(self, boot: str, device: int, paths: Sequence[str] = (), columns: Columns = ((), (), (), ())) -> None:
        self.boot, self.device = boot, device
        self.paths = list(paths)
        self.inodes, self.starts, self.lengths, self.sizes = map(list, columns)


class _KeptTar:
    """A tar that is read; `close` it."""

    def __init__(self, fd: int, index: _TarIndex) -> None:
        self.fd, self.index = fd, index
        self.numbers = {path: number for number, path in enumerate(index.paths)}

    def close(self) -> None:
        os.close(self.fd)

    def resembles(self, directory_fd: int) -> bool:
        """Whether a directory has some of the files: of a few that are looked at, most."""
        index, found = self.index, 0
        numbers = range(0, len(index.paths), len(index.paths) // _SAMPLES + 1)
        for number in numbers:
            with suppress(OSError):
                status = os.stat(index.paths[number], dir_fd=directory_fd, follow_symlinks=False)
                found += (status.st_dev, status.st_ino) == (index.device, index.inodes[number])
        return found * 2 > len(numbers)


class _Spliced(Gathered):
    """The output of a tar stream into which parts of an older tar go; those that lie beside each other at once."""

    def __init__(self, write: Write, source: _KeptTar) -> None:
        super().__init__(write)
        self._to, self._source = write, source
        self._start = self._end = 0  # what is still to be copied of the older tar, behind what was gathered

    def add(self, data: bytes) -> None:
        """Add a small piece."""
        if self._end:
            self._copy()
        super().add(data)

    def content(self, fd: int, size: int) -> bytes:
        """Add a file's content."""
        if self._end:
            self._copy()
        return super().content(fd, size)

    def part(self, start: int, length: int) -> None:
        """Add a part of the older tar."""
        if self._end != start:
            self._copy()
            self._start = start
        self._end = start + length
        self.total += length

    def _copy(self) -> None:
        self.flush()
        while self._start < self._end:
            piece = os.pread(self._source.fd, min(self._end - self._start, _PIECE), self._start)
            if not piece:
                raise OSError(5, "a kept tar is shorter than its index")
            self._to(piece)
            self._start += len(piece)
        self._start = self._end = 0


class _IndexingWriter(LayerWriter):
    """A writer of a layer's tar that notes its files, and takes what it can from an older tar."""

    def __init__(self, write: Write, index: _TarIndex, former: _KeptTar | None) -> None:
        self._parts = _Spliced(write, former) if former is not None else None
        super().__init__(write, self._parts)
        self._former = former.index if former is not None else None
        self._numbers = former.numbers if former is not None else {}
        self.index = index

    def known(self, path: str, inode: int) -> bool:
        """Take a file from the older tar, unless it is another one, or a further name of one."""
        number = self._numbers.get(path)
        if number is None or self._former is None or self._parts is None or self._former.inodes[number] != inode:
            return False
        name = path.encode("utf-8", "surrogateescape")
        if self._links.setdefault((self.index.device, inode), name) != name:
            return False
        start, former = self._out.total, self._former
        self._parts.part(former.starts[number], former.lengths[number])
        self.size += former.sizes[number]
        self._note(path, inode, start, former.sizes[number])
        return True

    def _file(self, fd: int, path: str, status: os.stat_result) -> None:
        start, before = self._out.total, self.size
        super()._file(fd, path, status)
        if status.st_nlink == 1 or self._links[status.st_dev, status.st_ino] == path.encode("utf-8", "surrogateescape"):
            self._note(path, status.st_ino, start, self.size - before)

    def _note(self, path: str, inode: int, start: int, size: int) -> None:
        index = self.index
        index.paths.append(path)
        index.inodes.append(inode)
        index.starts.append(start)
        index.lengths.append(self._out.total - start)
        index.sizes.append(size)


class _Keeping:
    """A tar that is written to be kept, as long as it is worth it; as a context.  A full disk is no error."""

    def __init__(self, path: str, index: _TarIndex) -> None:
        self._path, self._index = path, index
        self._new = f"{path}.{secrets.token_hex(4)}"
        self._fd = -1
        self.size = 0
        try:
            self._fd = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as e:
            log.warning("keep the tar of a layer in `%s`: %s", self._new, e.strerror)

    def __enter__(self) -> _Keeping:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up()

    def write(self, data: bytes | memoryview) -> None:
        """Write the next piece."""
        if self._fd < 0:
            return
        self.size += len(data)
        if self.size > _MOST_BYTES // 4 or self.size > _FREE + len(self._index.paths) * _MOST_A_FILE:
            self._give_up()
            return
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as e:
            log.warning("keep the tar of a layer in `%s`: %s", self._new, e.strerror)
            self._give_up()

    def _give_up(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with suppress(FileNotFoundError):
                os.unlink(self._new)

    def keep(self) -> bool:
        """Keep it; False: it is not worth it."""
        if self._fd < 0 or len(self._index.paths) < _LEAST_FILES:
            return False
        index = _encoded(self._index)
        self.write(index + len(index).to_bytes(_LENGTH, "big"))
        if self._fd < 0:
            return False
        os.rename(self._new, self._path)
        os.close(self._fd)
        self._fd = -1
        return True


def _encoded(index: _TarIndex) -> bytes:
    paths = os.fsencode("\0".join(index.paths))
    columns = (index.inodes, index.starts, index.lengths, index.sizes)
    return msgspec.msgpack.encode((index.boot, index.device, paths, columns))


def _opened(path: str) -> _KeptTar | None:
    """A kept tar; None: there is none, or none of this run of the machine.

    It was not brought to the disk, so of an earlier run, which may have ended by a power cut, it can be anything.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with ExitStack() as undo:
        undo.callback(os.close, fd)
        end = os.fstat(fd).st_size - _LENGTH
        length = int.from_bytes(os.pread(fd, _LENGTH, end), "big") if end > 0 else 0
        if not 0 < length <= end:
            return None
        try:
            boot, device, paths, columns = _DECODER.decode(os.pread(fd, length, end - length))
        except (OSError, ValueError) as e:  # of msgspec's own errors, too
            log.info("a kept tar, `%s`, cannot be read: %s", path, e)
            return None
        if boot != boot_id():
            return None
        undo.pop_all()
    index = _TarIndex(boot, device, os.fsdecode(paths).split("\0"), columns)
    return _KeptTar(fd, index)


class KeptTars:
    """The tars that are kept of the layers below a directory; used from any thread."""

    def __init__(self, root: str, is_layer: Callable[[str], bool]) -> None:
        """``is_layer`` tells layers' directories from what else is there, by their names."""
        self._root, self._is_layer = root, is_layer
        self._lock = threading.Lock()
        self._sizes: dict[str, int] | None = None  # by layers' directories, the newest last

    def _known(self) -> dict[str, int]:
        """The sizes of those that are there; with the lock."""
        if self._sizes is None:
            found = []
            for name in filter(self._is_layer, os.listdir(self._root)):
                with suppress(OSError):
                    status = os.lstat(os.path.join(self._root, name, _KEPT))
                    found.append((status.st_mtime_ns, name, status.st_size))
            self._sizes = {name: size for _, name, size in sorted(found)}
        return self._sizes

    def write(self, name: str, fd: int, write: Write) -> int:
        """Write the tar of a layer's open directory, and keep it if that is worth it; returns the bytes of its files.

        ``name`` is the layer's directory.  ``write`` gets buffers that are used again.
        """
        device = os.fstat(fd).st_dev
        with ExitStack() as stack:
            former = self._like(fd)
            if former is not None:
                stack.callback(former.close)
            index = _TarIndex(boot_id(), device)
            keeping = stack.enter_context(_Keeping(os.path.join(self._root, name, _KEPT), index))

            def both(data: bytes | memoryview) -> None:
                write(data)
                keeping.write(data)

            writer = _IndexingWriter(both, index, former)
            writer.content(fd, "")
            writer.end()
            if keeping.keep():
                self._add(name, keeping.size)
            return writer.size

    def _like(self, fd: int) -> _KeptTar | None:
        """The tar of a layer that has files of an open directory, which is whole."""
        with self._lock:
            names = list(reversed(self._known()))
        for name in names:
            found = _opened(os.path.join(self._root, name, _KEPT))
            if found is None:
                self._forget(name)  # mostly of a layer that was removed
                continue
            # The layer was there when the directory was whole: no inode of its files had been given to another.
            if found.resembles(fd):
                return found
            found.close()
        return None

    def _forget(self, name: str) -> None:
        with self._lock:
            self._known().pop(name, None)
            self._remove(name)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(os.path.join(self._root, name, _KEPT))

    def _add(self, name: str, size: int) -> None:
        """Note one, and remove the oldest ones as far as they are too many."""
        with self._lock:
            known = self._known()
            known.pop(name, None)
            known[name] = size
            while sum(known.values()) > _MOST_BYTES:
                oldest = next(iter(known))
                del known[oldest]
                self._remove(oldest)
