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
    from collections.abc import Iterator

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
    """The lines of a file, of which those that are no ranges are overlooked; none when there is no file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return [found for line in f if (found := _parse(line)) is not None]
    except FileNotFoundError:
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


def add(path: str, ids: SubIds) -> None:
    """Add a line (FailedPrecondition: it cannot be written, or somebody else keeps it locked)."""
    try:
        with _locked(path):
            text = _text(path)
            line = f"{ids.owner}:{ids.first}:{ids.size}\n"
            _replace(path, text + ("" if not text or text.endswith("\n") else "\n") + line)
    except OSError as e:
        raise FailedPrecondition(
            f"add `{ids.owner}:{ids.first}:{ids.size}` to `{path}`: {e.strerror}",
            hint="add the line yourself, in /etc/subuid and /etc/subgid",
        ) from e


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
    with open(own, "w", encoding="ascii") as f:
        f.write(f"{os.getpid()}\0")
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
        if time.monotonic() >= deadline:
            raise FailedPrecondition(f"lock `{path}`: `{lock}` is there", hint="another program changes the file")
        time.sleep(_PAUSE_S)
