"""The client's directories (``local://NAME``): the parts that a build needs, as a layer.

A directory that nobody else can change becomes a layer by hard links.  One that the client still has is copied, or sent
by a client elsewhere, and the copy is kept: the next build links what is as it was then, and when all of it is, takes
the same layer again and reads no file.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch import threads
from ketch.build.cache.contents import FormerTree
from ketch.build.cache.maps import LocalPatterns, local_map
from ketch.build.providers import LocalDirectory
from ketch.build.sources.attributes import texts
from ketch.build.sources.follow import follow
from ketch.build.sources.selection import PathSelection
from ketch.build.sources.threads import SourceMeter, metered
from ketch.build.tree import Tree
from ketch.errors import DataLoss, NotFound
from ketch.failpoints import failpoint
from ketch.storage.contexts import copies
from ketch.storage.contexts.copies import KeptCopy
from ketch.storage.contexts.fill import Known, fill
from ketch.storage.contexts.scan import scan
from ketch.storage.contexts.sync import DirectorySync, LastCopy
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots, LayerDraft, SentDirectory
    from ketch.storage.content.leases import Lease
    from ketch.storage.contexts.copies import ContextCopies
    from ketch.storage.contexts.scan import ScanEntry

SCHEME = "local://"


class LocalSource:
    """The operation of a client's directory."""

    def __init__(
        self,
        identifier: str,
        attrs: Mapping[str, str],
        snapshots: BuildSnapshots,
        kept: ContextCopies,
        from_client: Callable[[Tree, FormerTree | None], None],
    ) -> None:
        """``from_client`` is told each tree that is made (InvalidArgument: the attributes are wrong)."""
        self._name = identifier.removeprefix(SCHEME)
        self._session = attrs.get("local.session", "")
        self._snapshots, self._kept, self._from_client = snapshots, kept, from_client
        self._hint = attrs.get("local.sharedkeyhint", "")
        self._compared = attrs.get("local.differ", "") != "none"
        self._patterns = LocalPatterns(
            texts(attrs, "local.includepattern"),
            texts(attrs, "local.excludepatterns"),
            texts(attrs, "local.followpaths"),
        )
        PathSelection(self._patterns.include or (), self._patterns.exclude or ())

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The map, which no other session's is equal to: what is in the directory decides."""
        return [local_map(self._name, self._session or work.sessions[0].id, self._patterns)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Make the layer (NotFound: the client gives no such directory; Conflict: it changed meanwhile)."""
        del inputs
        missing: NotFound | None = None
        for session in sorted(work.sessions, key=lambda one: one.id != self._session):
            try:
                taken = await self._taken(work, await session.directory(self._name))
            except NotFound as e:
                missing = missing or e
                continue
            tree = Tree((taken.layer,))
            self._from_client(tree, taken.former)
            return [tree]
        raise missing or NotFound(f"no client gives the directory {self._name}")

    async def _taken(self, work: Work, directory: LocalDirectory | SentDirectory) -> _Taken:
        meter = SourceMeter(work.log, f"transferring {self._name}:")
        taking = _Taking(self._snapshots, self._kept, work.lease, meter.add)
        if isinstance(directory, LocalDirectory):
            return await self._read(taking, meter, directory)
        return await self._receive(taking, meter, directory)

    async def _read(self, taking: _Taking, meter: SourceMeter, directory: LocalDirectory) -> _Taken:
        """The layer of a directory that is open here."""
        fd = os.dup(directory.fd)  # the session may end before its directory has been read
        try:
            return await metered(meter, functools.partial(self._take, taking, fd, directory.private))
        finally:
            os.close(fd)

    async def _receive(self, taking: _Taking, meter: SourceMeter, directory: SentDirectory) -> _Taken:
        """The layer of a directory that its client sends."""
        patterns = self._patterns
        kept = self._compared and directory.key
        place = f"sent:{directory.key}:{self._hint}:{self._name}" if kept else ""
        receiving = _Receiving(taking, place, repr(patterns))
        try:
            await directory.send(patterns.include or (), patterns.exclude or (), patterns.follow or (), receiving)
            return await metered(meter, receiving.commit)
        except DataLoss:
            receiving.forget()
            raise
        finally:
            await threads.run_to_end(receiving.close)

    def _take(self, taking: _Taking, fd: int, private: bool) -> _Taken:
        """The layer; blocking."""
        include: Sequence[str] | None = self._patterns.include or []
        followed = self._patterns.follow
        if followed:
            targets = follow(fd, followed)
            include = None if targets is None else _merged([*(include or ()), *targets])
        selection = PathSelection(include or (), self._patterns.exclude or ())
        started_ns = copies.now_ns()
        entries = scan(fd, selection or None, functools.partial(taking.copied, 0))
        if private:
            return _Taken(taking.made(fd, entries, Known(fd, set(entries))))
        status = os.fstat(fd)
        place = f"{status.st_dev}:{status.st_ino}:{self._name}"
        return taking.copy(fd, entries, KeptCopy(layer="", place=place, taken_ns=started_ns), repr(self._patterns))


def _merged(paths: Sequence[str]) -> list[str] | None:
    """Paths without what is below another; None: all of the directory."""
    found: list[str] = []
    for path in paths:
        if path == ".":
            return None
        if not found or not path.startswith(f"{found[-1]}/"):
            found.append(path)
    return found


class _Taken(NamedTuple):
    """A layer that was made or found, and the copy that it was made of."""

    layer: str
    former: FormerTree | None = None


class _Taking(NamedTuple):
    """The making of one layer; blocking."""

    snapshots: BuildSnapshots
    kept: ContextCopies
    lease: Lease
    copied: Callable[[int], None]

    def copy(self, fd: int, entries: list[ScanEntry], new: KeptCopy, wanted: str) -> _Taken:
        """The layer of a directory that its client still has: the last one, if nothing has changed."""
        last = self.last(new.place, wanted)
        before = self.kept.entries(last) if last is not None else None
        if last is None or before is None:
            taken = _Taken(self.made(fd, entries, Known()))
        else:
            settled = copies.settled(last, before)
            if len(settled) == len(before) and entries == before:
                return _Taken(last.layer)
            known = set(settled)
            layer = self._changed(fd, entries, last.layer, Known(-1, known))
            taken = _Taken(layer, FormerTree(Tree((last.layer,)), copies.changed_paths(entries, before, known)))
        failpoint("context.copied")
        self.kept.keep(KeptCopy(layer=taken.layer, place=new.place, taken_ns=new.taken_ns), wanted, entries)
        return taken

    def last(self, place: str, wanted: str) -> KeptCopy | None:
        """The last copy whose layer is here, held by the lease."""
        return next(filter(self.holds, self.kept.find(place, wanted)), None)

    def holds(self, copy: KeptCopy) -> bool:
        """Whether a copy's layer is here, held by the lease from then on; else it is forgotten."""
        self.lease.hold(copy.layer)
        if self.snapshots.exists(copy.layer):
            return True
        self.kept.forget({copy.layer})
        return False

    def _changed(self, fd: int, entries: list[ScanEntry], last: str, known: Known) -> str:
        last_fd = os.open(self.snapshots.directory(last), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self.made(fd, entries, Known(last_fd, known.entries))
        finally:
            os.close(last_fd)

    def made(self, fd: int, entries: list[ScanEntry], known: Known) -> str:
        """A new layer with the entries."""
        draft = self.snapshots.begin(self.lease)
        try:
            fill(fd, entries, draft.directory, known, self.copied)
            return draft.commit()
        except BaseException:
            draft.abort()
            raise


class _Receiving:
    """The taking of a directory that its client sends: a `DirectoryReceiver`.  Blocking; `close` it."""

    def __init__(self, taking: _Taking, place: str, wanted: str) -> None:
        """``place`` tells the directory from others; empty: it is not compared with what it was, and not kept."""
        self._taking, self._wanted = taking, wanted
        self._new = KeptCopy(layer="", place=place, taken_ns=copies.now_ns())
        self._last: KeptCopy | None = None
        self._draft: LayerDraft | None = None
        self._undo = Undo()
        self.count = taking.copied

    def open(self) -> None:
        """Find the last copy; before all else."""
        taking = self._taking
        last = self._found() if self._new.place else None
        rows = taking.kept.entries(last) if last is not None else None
        if last is None or rows is None:
            self._sync = DirectorySync(self._begin)
        else:
            self._last = last
            fd = os.open(taking.snapshots.directory(last.layer), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._undo.callback(os.close, fd)
            settled = frozenset(copies.settled_content(last, rows))
            self._sync = DirectorySync(self._begin, LastCopy(rows, settled, fd, self._take_last))
        self._undo.callback(self._sync.close)
        # a receiver's methods; for each of many files they are called without a detour
        self.entry, self.data, self.end = self._sync.entry, self._sync.data, self._sync.end

    def _found(self) -> KeptCopy | None:
        """The last copy whose layer is here, and whether anybody else has to do with it."""
        taking = self._taking
        for one in taking.kept.find(self._new.place, self._wanted):
            self._use = self._undo.enter_context(taking.kept.used(one))
            self._held = taking.snapshots.held(one.layer)  # by this build, too: as a result
            if taking.holds(one):
                return one
        return None

    def _begin(self) -> LayerDraft:
        self._draft = self._taking.snapshots.begin(self._taking.lease)
        self._undo.callback(self._draft.abort)
        return self._draft

    def _take_last(self) -> LayerDraft | None:
        """The layer of the last copy, to be made the new one, which takes its place; None: others need it."""
        taking, last = self._taking, self._last
        if last is None or self._held or not self._use.alone or not taking.kept.replaced(last, self._wanted):
            return None
        taking.kept.forget({last.layer})
        draft = taking.snapshots.resume(last.layer, taking.lease)
        if draft is not None:
            self._draft = draft
            self._undo.callback(draft.abort)
        return draft

    def commit(self) -> _Taken:
        """The layer, when everything has come (KetchError)."""
        sync, last = self._sync, self._last
        sync.finish()
        if last is not None and sync.unchanged:
            return _Taken(last.layer)
        assert self._draft is not None
        layer = self._draft.commit()
        if self._new.place:
            self._taking.kept.keep(msgspec.structs.replace(self._new, layer=layer), self._wanted, sync.rows)
        if last is None:
            return _Taken(layer)
        return _Taken(layer, FormerTree(Tree((last.layer,)), sync.changed_paths()))

    def forget(self) -> None:
        """Forget the last copy, which is damaged."""
        if self._last is not None:
            self._taking.kept.forget({self._last.layer})

    def close(self) -> None:
        """Close what is open, and remove a layer that did not become one."""
        self._undo.close()
