"""The daemon's own directories and their permissions: the database has environments and labels, which hold secrets."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCKS = ("ketch.lock", "ketch-exec.lock")
_DATABASE = ("ketch.db", "ketch.db-wal", "ketch.db-shm")


def make(path: str, mode: int) -> None:
    """A root directory with that mode, also when somebody has made it with another one.

    A directory that has other things in it, and none of ours, stays as it is: it may be named by mistake.
    """
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
        raise FailedPrecondition(
            f"use directory `{path}`: there is a file in its place, or above it",
            hint="move it away, or choose other directories with --data-root and --exec-root",
        ) from e
    except (PermissionError, FileNotFoundError) as e:  # the latter of a directory that has been removed, and in /proc
        raise FailedPrecondition(
            f"make directory `{path}`: {os.strerror(e.errno or 0).lower()} at `{e.filename}`",
            hint="set HOME to a directory of this user, or choose others with --data-root and --exec-root",
        ) from e
    entries = os.listdir(path)
    if not entries or any(name in entries for name in _LOCKS):
        os.chmod(path, mode)


def real_path(path: str) -> str:
    """The path of an entry by the real names of the directories above it; what it may lead to itself is another's."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def check_not_inside(path: str, own: tuple[str, ...]) -> None:
    """FailedPrecondition for a root somewhere inside a root of another daemon, whose removals would reach it.

    ``own`` are this daemon's roots, which may lie in each other.
    """
    mine = {os.path.realpath(root) for root in own}
    above = os.path.dirname(os.path.realpath(path))
    while above != "/":
        if above not in mine and any(os.path.exists(os.path.join(above, name)) for name in _LOCKS):
            raise FailedPrecondition(
                f"use directory `{path}`: it is inside `{above}`, which is another daemon's",
                hint="choose other directories with --data-root and --exec-root",
            )
        above = os.path.dirname(above)


@contextmanager
def private_database(data_root: str) -> Iterator[None]:
    """A context in which the database is opened: its files, new and old, are made accessible to root alone."""
    for name in _DATABASE:
        path = os.path.join(data_root, name)
        if os.path.exists(path):
            os.chmod(path, 0o600)
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
