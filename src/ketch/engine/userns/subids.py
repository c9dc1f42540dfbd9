"""Subordinate ids: ``/etc/subuid`` and ``/etc/subgid`` (subuid(5)), which say whose the machine's spare ids are.

    dockremap:100000:65536

A line names a user (or the number of one), the first id, and how many.  Ranges that Ketch takes for itself are written
there too, so that useradd(8), Podman and systemd's tools give them to nobody else; for that the file is locked as the
programs of shadow do it: whoever links their own file to ``<file>.lock`` may write.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import FailedPrecondition
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAST_ID = 2**32 - 2  # (uid_t)-1 is none
_PATIENCE_S, _PAUSE_S = 5.0, 0.05


class SubIdFiles(NamedTuple):
    """The paths of the file for users and of the one for groups."""

    uids: str = "/etc/subuid"
    gids: str = "/etc/subgid"


class SubIds(NamedTuple):
    """One line: ``size`` ids from ``first`` on belong to ``owner``."""

    owner: str
    first: int
    size: int

    @property
    def end(self) -> int:
        """The first id after them."""
        return self.first + self.size


def read(path: str) -> list[SubIds]:
    """The lines of a file, of which those that are no ranges are overlooked.

    There are none when there is no file, or for a user who may not read it: `daemon.rootless` says so.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return [found for line in f if (found := _parse(line)) is not None]
    except (FileNotFoundError, PermissionError):
        return []


def _parse(line: str) -> SubIds | None:
    owner, _, rest = line.strip().partition(":")
    first, _, count = rest.partition(":")
    numbers = digits.whole(first, LAST_ID), digits.whole(count, LAST_ID)
    if not owner or owner.startswith("#") or numbers[0] is None or not numbers[1]:
        return None
    found = SubIds(owner, numbers[0], numbers[1])
    return found if found.end <= LAST_ID + 1 else None


def of_owner(path: str, *names: str) -> list[SubIds]:
    """The ranges of a user, who may have several names (a name and a number), in the file's order."""
    return [found for found in read(path) if found.owner in names]


def gaps(taken: list[SubIds], first: int, end: int) -> list[tuple[int, int]]:
    """(first id, count) of each run of ids between ``first`` and ``end`` that nobody has, lowest first."""
    found, at = [], first
    for one in sorted(taken, key=lambda ids: ids.first):
        if at < min(one.first, end):
            found.append((at, min(one.first, end) - at))
        at = max(at, one.end)
    if at < end:
        found.append((at, end - at))
    return found


def first_gap(taken: list[SubIds], size: int, first: int, end: int) -> tuple[int, int]:
    """The lowest of them that has ``size`` ids; (first, 0) when none has."""
    return next((gap for gap in gaps(taken, first, end) if gap[1] >= size), (first, 0))


def largest_gap(taken: list[SubIds], first: int, end: int) -> tuple[int, int]:
    """The largest of them; (first, 0) when there is none."""
    return max(gaps(taken, first, end), key=lambda gap: gap[1], default=(first, 0))


def give(files: SubIdFiles, owner: str, choose: Callable[[list[SubIds]], SubIds]) -> None:
    """Give a user a line in each file that has none of his: as in the other one, or what ``choose`` finds free.

    Blocking.  FailedPrecondition: they cannot be written, are kept locked, or the ids are somebody else's.
    """
    if all(of_owner(path, owner) for path in files):
        return
    with contextlib.ExitStack() as locks:
        for path in files:
            locks.enter_context(_locked(path))
        own = [ids for path in files for ids in of_owner(path, owner)]
        others = [ids for path in files for ids in read(path) if ids.owner != owner]
        ids = max(own, key=lambda one: one.size) if own else choose(others)
        if any(one.first < ids.end and ids.first < one.end for one in others):
            raise FailedPrecondition(
                f"give {owner} {ids.size} ids from {ids.first} on: others have some of them",
                hint=f"give {owner} the same ids in {files.uids} and {files.gids}",
            )
        for path in files:
            if not of_owner(path, owner):
                _add(path, ids)


def _add(path: str, ids: SubIds) -> None:
    line = f"{ids.owner}:{ids.first}:{ids.size}"
    text = _text(path)
    try:
        _replace(path, text + ("" if not text or text.endswith("\n") else "\n") + line + "\n")
    except OSError as e:
        raise _unwritable(path, e) from e


def _unwritable(path: str, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"change `{path}`: {error.strerror}",
        hint="add a line NAME:FIRST:COUNT yourself, to /etc/subuid and /etc/subgid",
    )


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def _replace(path: str, text: str) -> None:
    """Write the file anew beside the old one, and put it in its place: a reader sees one of the two, whole."""
    new = f"{path}.ketch-{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as f:
            os.fchmod(fd, 0o644)
            f.write(text)
            f.flush()
            os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    own, lock = f"{path}.{os.getpid()}", f"{path}.lock"
    try:
        with open(own, "w", encoding="ascii") as f:
            f.write(f"{os.getpid()}\0")
    except OSError as e:
        raise _unwritable(path, e) from e
    try:
        _link(own, lock, path)
    finally:
        os.unlink(own)
    try:
        yield
    finally:
        os.unlink(lock)


def _link(own: str, lock: str, path: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(FileExistsError):
            os.link(own, lock)
            return
        if _is_left(lock):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lock)
            continue
        if time.monotonic() >= deadline:
            raise FailedPrecondition(f"lock `{path}`: `{lock}` is there", hint="another program changes the file")
        time.sleep(_PAUSE_S)


def _is_left(lock: str) -> bool:
    """Whether the process that a lock names has ended."""
    try:
        with open(lock, encoding="ascii", errors="replace") as f:
            pid = digits.whole(f.read(32).rstrip("\0\n"))
        if pid:
            os.kill(pid, 0)
    except (FileNotFoundError, PermissionError):
        return False
    except ProcessLookupError:
        return True
    return False
