"""A client's archive, unpacked into a directory that nobody else can change.

It takes as much memory however large it is, stops before the disk is full, and is removed whole when it fails.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.failpoints import failpoint
from ketch.storage import removal
from ketch.storage.archive import compression, tar
from ketch.storage.archive.extract import Extractor
from ketch.storage.archive.limits import Guard

if TYPE_CHECKING:
    from ketch.storage.archive.tar import Member, Source

_PREFIX = "context-"
_DOING = "unpack the build context"
_BUFFER = 1 << 20


class PrivateDirectory:
    """A directory of the engine's own, open as ``fd``; gone with `close`."""

    def __init__(self, root: str) -> None:
        """``root``: the directory for it, on one file system with layers; it is made where it is missing."""
        os.makedirs(root, mode=0o700, exist_ok=True)
        self.path = os.path.join(root, _PREFIX + secrets.token_hex(8))
        os.mkdir(self.path, 0o755)
        self.fd = -1
        try:
            os.chmod(self.path, 0o755)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PrivateDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it with all that is in it; what cannot be removed goes at the next start."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        removal.try_to_remove(self.path)


def receive(source: Source, root: str) -> PrivateDirectory:
    """Unpack an archive, compressed or not, into a `PrivateDirectory` below ``root``, which the caller closes.

    All of it belongs to user and group 0.  Blocking.  InvalidArgument: it is broken, or leads out of the directory;
    ResourceExhausted: the disk is nearly full; then nothing stays.
    """
    directory = PrivateDirectory(root)
    try:
        with compression.reader(source, "the build context") as plain:
            _ContextUnpacking(directory.fd).run(tar.TarReader(Guard(plain, directory.fd, _DOING)))
            while plain.read(_BUFFER):
                pass  # a client that still sends padding must not see the connection break
        failpoint("context.received")
    except BaseException:
        directory.close()
        raise
    return directory


def sweep(root: str) -> None:
    """Remove what an earlier process left below ``root``."""
    if os.path.isdir(root):
        for path in removal.those(root, lambda name: name.startswith(_PREFIX)):
            removal.try_to_remove(path)


class _ContextUnpacking(Extractor):
    def __init__(self, fd: int) -> None:
        super().__init__(fd, layer=False)

    def _owner(self, member: Member) -> tuple[int, int]:
        return 0, 0

    def _node(self, member: Member, dir_fd: int, name: str) -> None:
        if member.kind == tar.CHAR and (member.major, member.minor) == (0, 0):
            raise InvalidArgument(
                f"`{member.name}` in the build context: a character device 0:0 cannot be in a layer",
                hint="overlay file systems take it for a file that was removed",
            )
        super()._node(member, dir_fd, name)

    def _root(self, member: Member) -> None:
        """Skip what the archive says of its root."""
