"""Propagation of binds: what the daemon's own directory needs, and which one the container's root must have for it.

A mount made inside a shared bind reaches the host only if the host's mount there is shared, and if the container's
mounts stay its peers; the first is checked here, the second is OCI's ``rootfsPropagation`` (Linux,
filesystems/sharedsubtree.rst).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.engine.volumes.mount_spec import PROPAGATION
from ketch.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.records import MountPoint

_SHARED, _SLAVE = ("shared", "rshared"), ("slave", "rslave")


def keep_out_of_daemon(point: MountPoint, data_root: str) -> None:
    """Make a bind around or below the daemon's directory a slave, as dockerd does; InvalidArgument for another wish.

    A private one would hold mounts there that the daemon takes away.
    """
    if point.type != "bind" or os.path.commonpath((point.source, data_root)) not in (point.source, data_root):
        return
    wish = asked(point)
    if not wish:
        point.propagation = "rslave"
    elif wish not in ("rslave", "rshared"):
        raise InvalidArgument(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{data_root}", bind mount source: "{point.source}", propagation: "{wish}"'
        )


def of_root(points: Sequence[MountPoint]) -> str:
    """The propagation that these binds need of the container's root; empty for the runtime's own choice."""
    if any(point.propagation in _SHARED for point in points if point.type == "bind"):
        return "shared"
    return ""


def check(points: Sequence[MountPoint]) -> None:
    """Raise FailedPrecondition, in Docker's words, for a shared or slave bind of a mount that is neither."""
    wanted = [p for p in points if p.type == "bind" and p.propagation in _SHARED + _SLAVE and asked(p)]
    if not wanted:
        return
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        mounts = dict(map(_parse, f))  # of several at one place the last, which covers the others
    for point in wanted:
        place = os.path.realpath(point.source)
        while place not in mounts and place != "/":
            place = os.path.dirname(place)
        tags = mounts.get(place, "")
        shared = "shared:" in tags
        if not shared and (point.propagation in _SHARED or "master:" not in tags):
            kind = "shared" if point.propagation in _SHARED else "shared or slave"
            raise FailedPrecondition(
                f"path {point.source} is mounted on {place} but it is not a {kind} mount",
                hint=f"make it one on the host: mount --make-shared {place}",
            )


def asked(point: MountPoint) -> str:
    """The propagation that the user asked for; empty for none."""
    if point.spec is not None:
        return point.spec.bind_options.propagation if point.spec.bind_options else ""
    return next((word for word in point.mode.split(",") if word in PROPAGATION), "")


def _parse(line: str) -> tuple[str, str]:
    """(mount point, optional fields) of a line of mountinfo."""
    words = line.split(" - ")[0].split(" ")
    path = words[4].encode(errors="surrogateescape").decode("unicode_escape").encode("latin-1")
    return os.fsdecode(path), " ".join(words[6:])
