"""A context as a tar stream, made while its directory is walked; what ``.dockerignore`` names is left out."""

from __future__ import annotations

import os
import stat
import tarfile

from ketch import trees
from ketch.client.tar import Packer, header
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ketch.dockerignore import IgnoreRules

END = bytes(2 * tarfile.BLOCKSIZE)


def pack(directory: str, rules: IgnoreRules, prefix: str = "", always: Collection[str] = ()) -> Iterator[bytes]:
    """The entries of a directory, all of them root's, without the archive's end (InvalidArgument: cannot be read).

    Their names begin with ``prefix``; the paths in ``always`` are there whatever the rules say.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidArgument(f"read context `{directory}`: {e.strerror}") from e
    try:
        with trees.Descent(fd) as at:
            yield from _Walk(at, rules, prefix, frozenset(always)).run()
    except OSError as e:
        raise InvalidArgument(f"read context `{directory}`: {e.strerror}") from e
    finally:
        os.close(fd)


def member(name: str, content: bytes) -> bytes:
    """A file's entry."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o600
    return header(info) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def directory(name: str) -> bytes:
    """A directory's entry."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return header(info)


class _Walk:
    """A walk: which patterns match each directory on the way down, and which of them are not packed yet."""

    def __init__(self, at: trees.Descent, rules: IgnoreRules, prefix: str, always: frozenset[str]) -> None:
        self._at, self._rules, self._prefix, self._always = at, rules, prefix, always
        self._packer = Packer(str, owner=(0, 0))
        self._matches: list[Sequence[bool]] = [()]
        self._waiting: list[tuple[int, bytes]] = []  # depth and header of those left out: one in them may be taken

    def run(self) -> Iterator[bytes]:
        """All entries that are taken."""
        for name in self._at.walk(trees.sorted_names):
            if name is None:
                self._matches.pop()
                if self._waiting and self._waiting[-1][0] == self._at.depth:
                    self._waiting.pop()
                continue
            path = self._at.prefix + name
            ignored, matches = self._rules.below(self._matches[-1], path) if self._rules else (False, ())
            depth = self._at.depth
            if not ignored or path in self._always:
                yield from (head for _, head in self._waiting)
                self._waiting.clear()
                yield from self._packer.entry(self._at, name, self._prefix + path)
            elif self._may_hold(path):
                self._enter(name, path)
            if self._at.depth > depth:
                self._matches.append(matches)

    def _may_hold(self, path: str) -> bool:
        """Whether something in a directory that is left out may be taken."""
        return any(wanted.startswith(f"{path}/") for wanted in self._always) or self._rules.may_keep_below(path)

    def _enter(self, name: str, path: str) -> None:
        """Go into a directory that is left out; anything else is passed over."""
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=self._at.fd, follow_symlinks=False).st_mode):
                return
            status = self._at.enter(name)
        except FileNotFoundError:
            return
        info = tarfile.TarInfo(self._prefix + path)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode), int(status.st_mtime)
        self._waiting.append((self._at.depth, header(info)))
