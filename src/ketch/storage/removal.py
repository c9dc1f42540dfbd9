"""Removal of directories that containers wrote: of any depth, during writes, never through a mount."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from ketch import trees
from ketch.errors import KetchError
from ketch.linux.openat2 import open_unmounted

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
_AT_ONCE = 4  # one huge tree does not hold up the others


def remove_tree(path: str) -> None:
    """Delete a path with everything below it; blocking.  A missing one is no error.

    Several may do so at once: a removal in the background and the sweep at the daemon's start.  The first thing that
    cannot be removed is raised (OSError with its path) when all others are gone.
    """
    trees.remove_path(path, open_unmounted)


def try_to_remove(path: str) -> None:
    """`remove_tree` for paths that a later sweep finds again: a failure is logged."""
    try:
        remove_tree(path)
    except OSError as e:
        log.warning("remove %s: %s: %s", path, e.filename, e.strerror)


def those(directory: str, chosen: Callable[[str], bool]) -> list[str]:
    """The paths of those entries of a directory whose names are ``chosen``."""
    return [os.path.join(directory, name) for name in os.listdir(directory) if chosen(name)]


class Remover:
    """Background deletions in a few threads; the process's end does not wait for them.

    Whatever is handed over must be found by the next start, which hands it over again.  May be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._closed = False

    def later(self, work: Callable[[], None]) -> None:
        """Run a deletion in the background, in the order of calls; ignored after `close`."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append(work)
            if self._threads < _AT_ONCE:
                threading.Thread(target=self._run, name="remove", daemon=True).start()
                self._threads += 1

    def close(self) -> None:
        """Begin no more deletions; those under way go on as long as the process."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                work = self._waiting.popleft()
            try:
                work()
            except (KetchError, OSError) as e:
                log.warning("remove files in the background: %s", e)
            except BaseException:
                with self._lock:
                    self._threads -= 1
                raise
