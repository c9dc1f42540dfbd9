"""Copies of clients' directories that are kept as layers, so that the next build copies only what has changed.

    FILE            a copy: a line of JSON (its layer, its directory, when it was taken), then its entries

A copy counts as long as the machine runs: nothing is synced for it, so after a crash its files may not be what the list
says.  What changed within the kernel's clock tick of being read could change again without a trace: it is read again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ketch.failpoints import failpoint
from ketch.storage.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ketch.storage.contexts.fill import Row

log = logging.getLogger(__name__)
_TICK_NS = 20_000_000  # twice the longest tick by which kernels date changes
_MOST = 32
_FORM = 1
_NEW = ".new"  # behind the name of a list that is being written


class KeptCopy(msgspec.Struct, kw_only=True, frozen=True):
    """A copy: the layer with its files, which directory it is of, and since when a change would show."""

    layer: str
    place: str
    taken_ns: int
    boot: str = ""
    form: int = _FORM


class CopyUse:
    """One of those who use a copy at the same time; ``alone``: there has been no other one meanwhile."""

    alone = True


class ContextCopies:
    """The copies that are known; used from any thread.

    A copy is named by its ``place`` (the client's directory) and by what of it was wanted.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._boot = boot_id()
        self._lock = threading.Lock()
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._known: dict[str, KeptCopy] = {}  # by file name, the last used last
        self._used: dict[str, int] = {}  # by file name, in ns since 1970
        self._uses: dict[str, list[CopyUse]] = {}  # by layer
        self._load()

    def layers(self) -> set[str]:
        """The layers of all copies, which must not be removed."""
        with self._lock:
            return {one.layer for one in self._known.values()}

    def uses(self) -> dict[str, int]:
        """The layers of all copies with the time of their last use, in ns since 1970."""
        with self._lock:
            return {one.layer: self._used.get(name, 0) for name, one in self._known.items()}

    def find(self, place: str, wanted: str) -> list[KeptCopy]:
        """The copies of a directory, the likeliest first: that of the same parts, then the newest."""
        with self._lock:
            name = _name(place, wanted)
            found = [one for key, one in reversed(self._known.items()) if one.place == place and key != name]
            if name in self._known:
                self._known[name] = same = self._known.pop(name)
                self._used[name] = now_ns()
                found.insert(0, same)
            return found

    def replaced(self, copy: KeptCopy, wanted: str) -> bool:
        """Whether a copy is the one that goes when another of these parts is kept."""
        with self._lock:
            return self._known.get(_name(copy.place, wanted)) is copy

    @contextmanager
    def used(self, copy: KeptCopy) -> Iterator[CopyUse]:
        """The use of a copy to make another one, as a context."""
        with self._lock:
            uses = self._uses.setdefault(copy.layer, [])
            uses.append(use := CopyUse())
            for one in uses if len(uses) > 1 else ():
                one.alone = False
        try:
            yield use
        finally:
            with self._lock:
                uses.remove(use)
                if not uses:
                    del self._uses[copy.layer]

    def entries(self, copy: KeptCopy) -> Sequence[Row] | None:
        """A copy's entries, in the order of the scan; None when they cannot be read, or another copy is kept by now."""
        with self._lock:
            names = [name for name, one in self._known.items() if one is copy]
        try:
            with open(os.path.join(self._root, names[0]), "rb") as f:
                f.readline()
                paths, columns = _ENTRIES.decode(f.read())
        except (IndexError, OSError, msgspec.DecodeError):
            return None
        return list(zip(os.fsdecode(paths).split("\0"), *columns, strict=True)) if columns else []

    def keep(self, copy: KeptCopy, wanted: str, entries: Sequence[Row]) -> None:
        """Note a copy, in the place of an older one of the same parts."""
        name = _name(copy.place, wanted)
        copy = msgspec.structs.replace(copy, boot=self._boot)
        path = os.path.join(self._root, name)
        names, *columns = zip(*entries, strict=True) if entries else ((),)
        paths = os.fsencode("\0".join(names))
        with self._lock:
            try:
                with open(path + _NEW, "wb") as f:
                    f.write(msgspec.json.encode(copy) + b"\n" + msgspec.msgpack.encode((paths, columns)))
                failpoint("context.list-written")
                os.rename(path + _NEW, path)
                failpoint("context.list-named")
            except OSError as e:
                log.warning("note the copy of a build context in `%s`: %s; the next is copied whole", path, e.strerror)
                self._drop([name])
                return
            self._known.pop(name, None)
            self._known[name] = copy
            self._used[name] = now_ns()
            self._drop(list(self._known)[:-_MOST])

    def forget(self, layers: Collection[str]) -> None:
        """Forget the copies with these layers."""
        with self._lock:
            self._drop([name for name, one in self._known.items() if one.layer in layers])

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            self._known.pop(name, None)
            self._used.pop(name, None)
            _unlink(os.path.join(self._root, name))

    def _load(self) -> None:
        dated: list[tuple[int, str, KeptCopy]] = []
        for name in os.listdir(self._root):
            path = os.path.join(self._root, name)
            if name.endswith(_NEW):  # its writer was killed
                _unlink(path)
                continue
            try:
                with open(path, "rb") as f:
                    copy = _COPY.decode(f.readline())
                    dated.append((os.fstat(f.fileno()).st_mtime_ns, name, copy))
            except (OSError, msgspec.DecodeError):
                _unlink(path)
                continue
            if copy.boot != self._boot or copy.form != _FORM:
                dated.pop()
                _unlink(path)
        self._known = {name: copy for _, name, copy in sorted(dated, key=lambda one: one[0])}
        self._used = {name: when for when, name, _ in dated}


_COPY = msgspec.json.Decoder(KeptCopy)
_ENTRIES: msgspec.msgpack.Decoder[tuple[bytes, list[list[int]]]] = msgspec.msgpack.Decoder(
    tuple[bytes, list[list[int]]]
)


def now_ns() -> int:
    """The time to note as ``taken_ns`` before a scan."""
    return time.time_ns()


def settled(copy: KeptCopy, entries: Sequence[Row]) -> Sequence[Row]:
    """The entries of a copy of which a later change would show."""
    limit = copy.taken_ns - _TICK_NS
    return [one for one in entries if one[4] < limit]


def settled_content(copy: KeptCopy, entries: Sequence[Row]) -> Sequence[Row]:
    """The same of entries that clients sent, which tell all but files' content."""
    limit = copy.taken_ns - _TICK_NS
    return [one for one in entries if one[4] < limit or not stat.S_ISREG(one[1])]


def changed_paths(entries: Sequence[Row], before: Sequence[Row], known: Collection[Row]) -> set[str]:
    """The paths of entries that are not ``known`` to be as they were ``before``, or are gone, and of all above them."""
    gone = {one[0] for one in before}.difference([one[0] for one in entries])
    return with_parents((*gone, *(one[0] for one in entries if one not in known)))


def with_parents(paths: Iterable[str]) -> set[str]:
    """Paths, and those of all directories above them."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _name(place: str, wanted: str) -> str:
    return hashlib.sha256(f"{place}\0{wanted}".encode()).hexdigest()[:32]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as e:
        log.warning("remove `%s`: %s", path, e.strerror)
