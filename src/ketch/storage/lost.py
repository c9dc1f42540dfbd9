"""Unknown files and directories, which are moved to ``lost/`` and kept.

    DATA-ROOT/lost/<date>/containers/<id>, layers/<id>, blobs/<digest>            by a start
    DATA-ROOT/lost/<id>                                                           a container's, by a repair

A directory that nothing refers to, and that nothing says was to go, has lost its row.  It is never deleted:
``--repair`` brings it back as far as it can be told what it was, ``--prune-lost`` deletes it.  A rename is all that
happens, so that a crash leaves each thing in one of the two places.
"""

from __future__ import annotations

import logging
import os
import re
import time
from errno import EEXIST

log = logging.getLogger(__name__)
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_KEPT_NAME = re.compile(r"(?:built-[0-9a-f]{32}|[0-9a-f]{64})\Z")
KINDS = {"containers": "containers", "layers": "layers", "blobs": "content/blobs/sha256"}


class Lost:
    """The directory of one start's findings, made with the first one."""

    def __init__(self, data_root: str) -> None:
        self._root = os.path.join(data_root, "lost")
        self._directory = ""

    def put(self, kind: str, path: str) -> None:
        """Move a directory or a file here, with a line in the log; on an error it stays."""
        name = os.path.basename(path)
        try:
            directory = os.path.join(self._make_directory(), kind)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if os.path.lexists(os.path.join(directory, name)):  # the clock was set back
                raise FileExistsError(EEXIST, os.strerror(EEXIST))
            os.rename(path, os.path.join(directory, name))
        except OSError as e:
            log.warning("`%s` belongs to nothing that is known and is left alone: %s", path, e.strerror)
            return
        log.warning("`%s` belongs to nothing that is known: it is now in `%s`", path, directory)

    def _make_directory(self) -> str:
        if not self._directory:
            self._directory = os.path.join(self._root, time.strftime("%Y-%m-%dT%H%M%S"))
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return self._directory


def directories(data_root: str) -> list[str]:
    """The entries of ``lost/``: the directories of starts, oldest first, and containers'."""
    root = os.path.join(data_root, "lost")
    return [os.path.join(root, name) for name in sorted(os.listdir(root))] if os.path.isdir(root) else []


def kept_paths(data_root: str, kind: str) -> list[str]:
    """The paths of the kept objects of a type, the newest first."""
    found = []
    folders = [os.path.join(directory, kind) for directory in reversed(directories(data_root))]
    if kind == "containers":
        folders.append(os.path.join(data_root, "lost"))
    for directory in folders:
        if os.path.isdir(directory):
            found += [os.path.join(directory, name) for name in os.listdir(directory) if _KEPT_NAME.match(name)]
    return found


def warnings(data_root: str) -> list[str]:
    """A warning when ``lost/`` is not empty."""
    if not directories(data_root):
        return []
    return [
        f"WARNING: {os.path.join(data_root, 'lost')} has what lost its place in the state: "
        "`ketchd --repair` brings it back, `ketchd --prune-lost` deletes it"
    ]


def is_ours(name: str) -> bool:
    """Whether a name has the form of those of containers, layers and blobs (others are not ours)."""
    return bool(_NAME.match(name))
