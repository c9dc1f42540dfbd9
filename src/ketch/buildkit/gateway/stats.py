"""The status of files, as front ends are told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.buildkit.session.packets import stat_of
from ketch.storage.contexts.sent import SentEntry

if TYPE_CHECKING:
    from ketch.buildkit.wire.files.stat_pb2 import Stat
    from ketch.engine.build.frontends.files import TreeFile


def of(one: TreeFile) -> Stat:
    """The message of a file."""
    status = one.status
    return stat_of(
        SentEntry(
            one.path,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            *one.owner,
            one.target,
            status.st_rdev,
            tuple(sorted(one.xattrs.items())),
        )
    )
