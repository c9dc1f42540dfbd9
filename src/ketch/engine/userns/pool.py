"""The pool that ``--userns auto`` takes ranges of ids from, and which of them are taken.

A range belongs to a container from its creation to its removal and stands in its record, so there is no second place
that could differ from it; builds' commands have theirs only while they run.  Several daemons on one machine need
pools of their own: a pool is locked as long as the daemon that took ids from it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.user import UserNamespace
from ketch.engine.userns import subids
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import digits
from ketch.storage import file_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ketch.engine.userns.subids import SubIdFiles

log = logging.getLogger("ketchd")
DEFAULT_USER = "ketch"
# Between the ids of domains' users (SSSD's and FreeIPA's end at 2000200000) and those of systemd's foreign images.
_FIRST, _END = 0x77400000, 0x7FFE0000
_LOCK = re.compile(r"userns-(\d{1,10})-(\d{1,10})", re.ASCII)
_PATIENCE_S = 5.0


def check(text: str) -> None:
    """Check the value of ``--userns-pool``: a user's name, or FIRST:COUNT (InvalidArgument)."""
    if ":" in text:
        _numbers(text)


def _numbers(text: str) -> subids.SubIds:
    first, _, count = text.partition(":")
    numbers = digits.whole(first, subids.LAST_ID), digits.whole(count, subids.LAST_ID)
    if not numbers[0] or not numbers[1] or sum(n or 0 for n in numbers) > subids.LAST_ID + 1:
        raise InvalidArgument(f"invalid --userns-pool `{text}`", hint="write a user's name, or FIRST:COUNT")
    return subids.SubIds("", numbers[0], numbers[1])


class IdPool:
    """Ids of the machine that this daemon may give to containers: a user's subordinate ids, or FIRST:COUNT.

    ``owner`` is the data root of the daemon.  Whose containers have ids of a pool stands in a file beside its lock, for
    they may run while their daemon does not.
    """

    def __init__(self, source: str, files: SubIdFiles, owner: str) -> None:
        self._source, self._files, self._owner = source, files, owner
        self._ids: subids.SubIds | None = None
        self._lock: file_lock.FileLock | None = None
        self._opening = threading.Lock()
        self._reserved: list[UserNamespace] = []
        self._elsewhere: list[tuple[subids.SubIds, file_lock.FileLock]] = []
        self._next = 0

    def close(self, known: Iterable[UserNamespace] = ()) -> None:
        """Let another daemon use it, unless containers of this one, the ``known``, have ids of it."""
        known = list(known)
        if self._lock is not None and self._ids is not None:
            self._elsewhere.append((self._ids, self._lock))
            self._lock = None
        while self._elsewhere:
            ids, lock = self._elsewhere.pop()
            if not _ranges(ids, known):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_owners_file(ids))
            lock.close()

    @contextlib.contextmanager
    def reserved(self, size: int, known: Iterable[UserNamespace]) -> Iterator[UserNamespace]:
        """A range of ``size`` ids that nobody has: none of ``known``, and nobody else who is in such a block.

        FailedPrecondition when there is none, or no pool.
        """
        pool, known = self.opened(), list(known)
        taken = [*_ranges(pool, known), *_ranges(pool, self._reserved)]
        # Behind the last one first: who held a range may have left files in directories of the host.
        behind = self._next or max((one.end for one in taken), default=pool.first)
        first, found_size = subids.first_gap(taken, size, min(behind, pool.end), pool.end)
        if found_size < size:
            first, found_size = subids.first_gap(taken, size, pool.first, pool.end)
        if found_size < size:
            raise FailedPrecondition(
                f"find {size} ids for a user namespace: of the {pool.size} from {pool.first} on too many are taken",
                hint="remove containers that have ranges, or enlarge the range of "
                f"{self._source or DEFAULT_USER} in {self._files.uids} and {self._files.gids}",
            )
        self._next = first + size
        found = UserNamespace.of_range(first, size)
        self._reserved.append(found)
        try:
            yield found
        finally:
            self._reserved.remove(found)

    def opened(self) -> subids.SubIds:
        """The pool, which is this daemon's alone from now on.  The first call may wait for files and locks."""
        with self._opening:
            if self._ids is None or self._lock is None:
                ids = _numbers(self._source) if ":" in self._source else self._of_user(self._source)
                mine = [(run.first, run.size) for run, _ in self._elsewhere]
                self._lock, self._ids = _taken(ids, self._owner, mine), ids
            return self._ids

    def keep(self, known: Iterable[UserNamespace]) -> None:
        """Hold the ids of these namespaces: the pool, if some are in it (FailedPrecondition), and those elsewhere.

        The pool was another one when their containers were made.  What others hold of it is logged.
        """
        known = list(known)
        ids = _numbers(self._source) if ":" in self._source else self._common(self._source)
        if ids is not None and _ranges(ids, known):
            self.opened()
        for run in _outside(ids, known):
            try:
                self._elsewhere.append((run, _taken(run, self._owner)))
            except FailedPrecondition as e:
                log.warning("user namespaces of containers that are here: %s", e)

    def _of_user(self, user: str) -> subids.SubIds:
        """The largest range of ids that a user has in both files; ketch gets one if he has none."""
        if user == DEFAULT_USER:
            subids.give(self._files, user, _free)
        found = self._common(user)
        if found is None:
            raise FailedPrecondition(
                f"find ids for user namespaces: {user} has no range that is in {self._files.uids} "
                f"and in {self._files.gids}",
                hint=f"add a line such as {user}:{_FIRST}:{_END - _FIRST} to both files",
            )
        return found

    def _common(self, user: str) -> subids.SubIds | None:
        uids, gids = (subids.of_owner(path, user) for path in self._files)
        both = [
            subids.SubIds(user, max(u.first, g.first), min(u.end, g.end) - max(u.first, g.first))
            for u in uids
            for g in gids
        ]
        largest = max(both, key=lambda ids: ids.size, default=None)
        return largest if largest is not None and largest.size > 0 else None


def _free(taken: list[subids.SubIds]) -> subids.SubIds:
    first, size = subids.largest_gap(taken, _FIRST, _END)
    if not size:
        raise FailedPrecondition(f"find ids for {DEFAULT_USER}: all between {_FIRST} and {_END} are taken")
    return subids.SubIds(DEFAULT_USER, first, size)


def _taken(ids: subids.SubIds, owner: str, mine: Collection[tuple[int, int]] = ()) -> file_lock.FileLock:
    """The lock of a pool of which nobody else has any (FailedPrecondition); ``mine`` are locked by this one."""
    hint = "start this one with a --userns-pool of its own"
    what = f"take ids from {ids.first} on for a user namespace"
    try:
        with file_lock.take_named("userns-pools", wait_s=_PATIENCE_S):
            own = file_lock.take_named(_name(ids))
            with contextlib.ExitStack() as undo:
                undo.callback(own.close)
                for other in _overlapping(ids):
                    if (other.first, other.size) not in ((ids.first, ids.size), *mine):
                        file_lock.take_named(_name(other)).close()
                    theirs = _owner_of(other)
                    if theirs not in ("", owner) and os.path.isdir(theirs):
                        raise FailedPrecondition(f"{what}: containers of the data root `{theirs}` have some", hint=hint)
                with open(_owners_file(ids), "w", encoding="utf-8", errors="surrogateescape") as f:
                    f.write(owner)
                undo.pop_all()
            return own
    except file_lock.Held as e:
        raise FailedPrecondition(f"{what}: the daemon of process {e.pid} gives them out", hint=hint) from e


def _name(ids: subids.SubIds) -> str:
    return f"userns-{ids.first}-{ids.size}"


def _owners_file(ids: subids.SubIds) -> str:
    return os.path.join(file_lock.directory(), f"{_name(ids)}.owner")


def _owner_of(ids: subids.SubIds) -> str:
    try:
        with open(_owners_file(ids), encoding="utf-8", errors="surrogateescape") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def _overlapping(ids: subids.SubIds) -> list[subids.SubIds]:
    """The pools that daemons have locked, now or before, which have some of these ids."""
    matches = (_LOCK.fullmatch(name) for name in os.listdir(file_lock.directory()))
    found = [subids.SubIds("", int(match[1]), int(match[2])) for match in matches if match is not None]
    return [one for one in found if one.first < ids.end and ids.first < one.end]


def _outside(pool: subids.SubIds | None, namespaces: Iterable[UserNamespace]) -> list[subids.SubIds]:
    """The ids of namespaces that are not in the pool, in as few runs as possible."""
    runs: list[subids.SubIds] = []
    around = [pool] if pool is not None else []
    for one in sorted(_ranges(subids.SubIds("", 0, subids.LAST_ID + 1), namespaces), key=lambda ids: ids.first):
        for first, size in subids.gaps(around, one.first, one.end):
            if runs and first <= runs[-1].end:
                last = runs.pop()
                size, first = max(last.end, first + size) - last.first, last.first
            runs.append(subids.SubIds("", first, size))
    return runs


def _ranges(pool: subids.SubIds, namespaces: Iterable[UserNamespace]) -> list[subids.SubIds]:
    """The ids of namespaces that are in the pool."""
    parts = [part for namespace in namespaces for part in (*namespace.uids, *namespace.gids)]
    return [
        subids.SubIds("", part.outside, part.size)
        for part in parts
        if part.outside < pool.end and part.end > pool.first
    ]
