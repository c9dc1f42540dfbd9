"""The pool that ``--userns auto`` takes ranges of ids from, and which of them are taken.

A range belongs to a container from its creation to its removal and stands in its record, so there is no second place
that could differ from it; builds' commands have theirs only while they run.  Several daemons on one machine need
pools of their own: a pool is locked as long as the daemon that took ids from it runs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.user import UserNamespace
from ketch.engine.userns import subids
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import digits
from ketch.storage import file_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ketch.engine.userns.subids import SubIdFiles

DEFAULT_USER = "ketch"
# Between the ids of nspawn's containers and those of systemd's foreign images (systemd's UIDS-GIDS): here is nobody.
_FIRST, _END = 0x70000000, 0x7FFE0000


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
    """Ids of the machine that this daemon may give to containers: a user's subordinate ids, or FIRST:COUNT."""

    def __init__(self, source: str, files: SubIdFiles) -> None:
        self._source, self._files = source, files
        self._ids: subids.SubIds | None = None
        self._lock: file_lock.FileLock | None = None
        self._reserved: list[UserNamespace] = []

    def close(self) -> None:
        """Let another daemon use it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextlib.contextmanager
    def reserved(self, size: int, known: Iterable[UserNamespace]) -> Iterator[UserNamespace]:
        """A range of ``size`` ids that nobody has: none of ``known``, and nobody else who is in such a block.

        FailedPrecondition when there is none, or no pool.
        """
        pool = self._opened()
        taken = [*_ranges(pool, known), *_ranges(pool, self._reserved)]
        # Behind the last one first: who held a range may have left files in directories of the host.
        behind = max((one.end for one in taken), default=pool.first)
        if pool.end - behind >= size:
            first = behind
        else:
            first, count = subids.first_gap(taken, size, pool.first, pool.end)
            if count < size:
                raise FailedPrecondition(
                    f"find {size} ids for a user namespace: of the {pool.size} from {pool.first} on too many are taken",
                    hint="remove containers that have ranges, or enlarge the range of "
                    f"{self._source or DEFAULT_USER} in {self._files.uids} and {self._files.gids}",
                )
        found = UserNamespace.of_range(first, size)
        self._reserved.append(found)
        try:
            yield found
        finally:
            self._reserved.remove(found)

    def _opened(self) -> subids.SubIds:
        """The pool, which is this daemon's alone from now on."""
        if self._ids is None:
            ids = _numbers(self._source) if ":" in self._source else self._of_user(self._source)
            try:
                self._lock = file_lock.take_named(f"userns-{ids.first}")
            except file_lock.Held as e:
                raise FailedPrecondition(
                    f"take ids from {ids.first} on for a user namespace: the daemon of process {e.pid} gives them out",
                    hint="start this one with a --userns-pool of its own",
                ) from e
            self._ids = ids
        return self._ids

    def _of_user(self, user: str) -> subids.SubIds:
        """The largest range of ids that a user has in both files; ketch gets one if he has none."""
        found = self._common(user)
        if found is None and user == DEFAULT_USER:
            taken = [ids for path in self._files for ids in subids.read(path)]
            first, count = subids.largest_gap(taken, _FIRST, _END)
            for path in self._files:
                if count and not subids.of_owner(path, user):
                    subids.add(path, subids.SubIds(user, first, count))
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


def _ranges(pool: subids.SubIds, namespaces: Iterable[UserNamespace]) -> list[subids.SubIds]:
    """The ids of namespaces that are in the pool."""
    parts = [part for namespace in namespaces for part in (*namespace.uids, *namespace.gids)]
    return [
        subids.SubIds("", part.outside, part.size)
        for part in parts
        if part.outside < pool.end and part.end > pool.first
    ]
