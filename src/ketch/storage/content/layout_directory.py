"""An OCI image-layout in somebody's directory, which is open: caches that builds exchange through directories.

Nothing outside of the directory is reached, whatever its owner puts into it meanwhile.  What is written belongs to the
directory's owner.  Several may write at once; what one that was killed has left goes with the next.  Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from errno import ELOOP, ENOENT, ENOTDIR, EWOULDBLOCK, EXDEV
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import Conflict, DataLoss, InvalidArgument, NotFound
from ketch.failpoints import failpoint
from ketch.linux.openat2 import open_beneath
from ketch.oci import digest as digests
from ketch.oci import manifest as oci

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = "org.opencontainers.image.ref.name"
_INDEX = "index.json"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_LARGEST_INDEX = 4 << 20
_PIECE = 1 << 20
_BLOBS = "blobs/sha256"
_BEGUN = re.compile(r"\.([0-9a-f]{64}|index\.json|oci-layout)\.[0-9a-f]{8}\Z")  # files that are being written
_ATTEMPTS, _PATIENCE_S = 10, 10.0


class LayoutDirectory:
    """A layout; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    # -- read --------------------------------------------------------------------------------------

    def index(self) -> oci.Index:
        """The index of the layout, empty where there is none (InvalidArgument: it cannot be read)."""
        try:
            data = self._file(_INDEX, _LARGEST_INDEX)
        except NotFound:
            return oci.Index(media_type=oci.INDEX, manifests=[])
        try:
            return msgspec.json.decode(data, type=oci.Index)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise InvalidArgument(f"{_INDEX} of the directory cannot be read: {e}") from e

    def read(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob, verified (NotFound, InvalidArgument, DataLoss)."""
        data = self._file(_path(descriptor.digest), limit)
        descriptor.check_size(len(data))
        if not digests.matches(descriptor.digest, data):
            raise DataLoss(f"blob {descriptor.digest} of the directory: its content does not match its digest")
        return data

    def _file(self, path: str, limit: int) -> bytes:
        with self._opened(path) as fd:
            data = b""
            while piece := os.read(fd, _PIECE):
                data += piece
                if len(data) > limit:
                    raise InvalidArgument(f"{path} of the directory is larger than {limit} bytes")
            return data

    def copy(self, descriptor: oci.Descriptor, write: Callable[[bytes], object]) -> None:
        """Write a blob to somebody who verifies it (NotFound, InvalidArgument: it has another size)."""
        size = 0
        with self._opened(_path(descriptor.digest)) as fd:
            while size <= descriptor.size and (piece := os.read(fd, _PIECE)):
                size += len(piece)
                write(piece)
        descriptor.check_size(size)

    def described(self, digest: str) -> oci.Descriptor:
        """A descriptor of a blob by what is here; its media type is not known (NotFound, InvalidArgument)."""
        with self._opened(_path(digest)) as fd:
            return oci.Descriptor(media_type="", digest=digest, size=os.fstat(fd).st_size)

    def named(self, tag: str, digest: str) -> oci.Descriptor:
        """The descriptor of a manifest by its name, or by its digest where that is given (NotFound)."""
        for one in self.index().manifests:
            if one.digest == digest or (not digest and (one.annotations or {}).get(NAME) == tag):
                return one
        raise NotFound(f"the directory has nothing named {digest or tag}")

    def has(self, descriptor: oci.Descriptor) -> bool:
        """Whether a blob of that name and size is here."""
        try:
            with self._opened(_path(descriptor.digest)) as fd:
                return os.fstat(fd).st_size == descriptor.size
        except NotFound:
            return False

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """A regular file below the directory (NotFound, InvalidArgument)."""
        try:
            fd = open_beneath(self._fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as e:
            if e.errno in (ENOENT, ENOTDIR):
                raise NotFound(f"the directory has no {path}") from None
            if e.errno in (ELOOP, EXDEV):
                raise InvalidArgument(f"{path} of the directory is a link, or leads out of it") from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidArgument(f"{path} of the directory is no regular file")
            yield fd
        finally:
            os.close(fd)

    # -- written -----------------------------------------------------------------------------------

    def put(self, descriptor: oci.Descriptor, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is here (InvalidArgument: the pieces are another one)."""
        if self.has(descriptor):
            return
        found = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for piece in pieces:
                found.update(piece)
                yield piece
            if f"sha256:{found.hexdigest()}" != descriptor.digest:
                raise InvalidArgument(f"write blob {descriptor.digest}: its content is sha256:{found.hexdigest()}")

        self._make("blobs")
        self._make(_BLOBS)
        self._write(_path(descriptor.digest), hashed())

    def name(self, manifest: oci.Descriptor, tag: str) -> None:
        """Give a manifest that is here a name, which another one loses."""
        with self._alone():
            self._name(manifest, tag)

    def _name(self, manifest: oci.Descriptor, tag: str) -> None:
        described = msgspec.structs.replace(manifest, annotations={NAME: tag})
        kept = [one for one in self.index().manifests if (one.annotations or {}).get(NAME) != tag]
        index = oci.Index(media_type=oci.INDEX, manifests=[*kept, described])
        self._write("oci-layout", [_LAYOUT])
        self._write(_INDEX, [oci.encode(index)])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The index for the caller alone (Conflict: another writer does not let go of it)."""
        fd = open_beneath(self._fd, ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _locked(fd):
                if time.monotonic() > deadline:
                    raise Conflict(f"write {_INDEX} of the directory: somebody else has it locked")
                time.sleep(0.01)
            yield
        finally:
            os.close(fd)

    def _make(self, path: str) -> None:
        with self._parent(path) as (fd, name), contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=fd)
            self._give(fd, name)

    def _write(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a file, which is there when it is whole."""
        with self._parent(path) as (directory_fd, name):
            _remove_left(directory_fd)
            fd, new = _begun(directory_fd, name)
            with open(fd, "wb") as file:
                try:
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    self._give(directory_fd, new)
                    failpoint("layout.file-written")
                    os.rename(new, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
                except BaseException:
                    os.unlink(new, dir_fd=directory_fd)
                    raise
                failpoint("layout.file-named")

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        parent, _, name = path.rpartition("/")
        fd = open_beneath(self._fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def _give(self, directory_fd: int, name: str) -> None:
        """Make a new file the directory's owner's."""
        owner = os.fstat(self._fd)
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=directory_fd, follow_symlinks=False)


def _begun(directory_fd: int, name: str) -> tuple[int, str]:
    """A new file, locked as long as it is written to: its descriptor, and the name that it has until then.

    Conflict: somebody is in the way again and again.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_ATTEMPTS):
        new = f".{name}.{secrets.token_hex(4)}"
        fd = os.open(new, flags, 0o644, dir_fd=directory_fd)
        if _locked(fd) and os.fstat(fd).st_nlink:
            return fd, new
        os.close(fd)  # another writer took it for one that was left
    raise Conflict(f"write `{name}` to the directory: others remove what is begun")


def _locked(fd: int) -> bool:
    """Lock a file, or go on without on a file system that has no locks; False: somebody else has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        return e.errno != EWOULDBLOCK
    return True


def _remove_left(directory_fd: int) -> None:
    """Remove the files of writers that were killed: nobody has them locked."""
    for name in filter(_BEGUN.match, os.listdir(directory_fd)):
        with contextlib.suppress(OSError):  # it is gone, locked, or none of ours
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory_fd)
            finally:
                os.close(fd)


def _path(digest: str) -> str:
    return f"{_BLOBS}/{digests.hexadecimal(digests.check(digest))}"
