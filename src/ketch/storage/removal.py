"""Removal of directories that containers wrote: of any depth, while somebody may still write, never through a mount."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ketch import trees
from ketch.linux.openat2 import open_unmounted

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


def remove_tree(path: str) -> None:
    """Delete a directory, or whatever is there, with all below it; blocking.  What is gone already is no error.

    Several may do so at once: a removal in the background and the sweep at the daemon's start.  The first thing that
    cannot be removed is raised (OSError with its path) when all others are gone.
    """
    trees.remove_path(path, open_unmounted)


def try_to_remove(path: str) -> None:
    """`remove_tree` for what a later sweep will find again: a failure is a line in the log."""
    try:
        remove_tree(path)
    except OSError as e:
        log.warning("remove %s: %s: %s", path, e.filename, e.strerror)


def sweep(directory: str, doomed: Callable[[str], bool]) -> None:
    """Remove those entries of a directory whose names are ``doomed``; one that cannot be holds up no other."""
    for name in os.listdir(directory):
        if doomed(name):
            try_to_remove(os.path.join(directory, name))
