"""Exchange of a damaged database for the repaired one, in steps that can be interrupted anywhere.

ketch.db.repaired, -mark         written and checked
ketch.db.damaged-N, -wal         second names of the old files
ketch.db.repaired-ready          from here on it is finished by whoever comes: the next start, or the next repair
"""

from __future__ import annotations

import contextlib
import os

from ketch.failpoints import failpoint

_PARTS = ("-wal", "-shm", "-mark", "-reserve", "-spare")


def clear(new: str) -> None:
    """Remove the files of a repair that was killed."""
    for suffix in ("", *_PARTS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new + suffix)


def exchange(path: str, new: str) -> str:
    """Put the new database in the old one's place; returns where the old one is (empty: there was none)."""
    kept = next(name for n in range(1, 1000) if not os.path.exists(name := f"{path}.damaged-{n}"))
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            os.link(path + suffix, kept + suffix)
    failpoint("repair.old-kept")
    _sync(path)
    with open(new + "-ready", "xb") as f:
        os.fsync(f.fileno())
    _sync(path)
    failpoint("repair.ready")
    finish(path, new)
    return kept if os.path.exists(kept) else ""


def finish(path: str, new: str) -> None:
    """Carry out an exchange that is ready; nothing to do when there is none."""
    if not os.path.exists(new + "-ready"):
        return
    if os.path.exists(new):
        for suffix in _PARTS:  # the old file's: the new one must not meet them
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
        failpoint("repair.old-log-gone")
        os.rename(new, path)
        failpoint("repair.exchanged")
    if os.path.exists(new + "-mark"):
        os.rename(new + "-mark", path + "-mark")
    clear(new)
    _sync(path)
    os.unlink(new + "-ready")
    _sync(path)


def _sync(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
