"""Id mappings of mounts: the ``idmap`` option of a bind mount or a volume.

``idmap`` alone (or ``idmap=owner``) solves the common wound: files that the container creates belong to the owner of
the directory that was mounted, and the container sees that owner's files as its own.  Its user and the owner change
places; every other id stays what it is, so that nothing becomes ``nobody`` and everything can be written.

``idmap=uids=1000-0-1#0-1000-1;gids=1000-0-1`` says it in full: id on disk, id in the container, how many.

In a user namespace ``idmap=container`` says that the ids on disk are those in the container, as they are in every
volume; ``idmap=none`` that nothing is mapped, as it is with binds: what belongs to the machine's root is nobody's.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument
from ketch.runtime.rootfs import overlay
from ketch.runtime.security import users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.engine.model.namespaces.user import IdRange, UserNamespace
    from ketch.engine.model.records import MountPoint
    from ketch.runtime.oci_types import OciIdMapping
    from ketch.storage.snapshots.overlay import Snapshots

OWNER = "owner"
CONTAINER = "container"
NONE = "none"
_RANGE = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,10})", re.ASCII)
_END = 2**32 - 1  # no id: (uid_t)-1
_MAX_RANGES = 340  # user_namespaces(7)
Ranges = tuple["Range", ...]


class Range(NamedTuple):
    """``size`` ids from ``disk`` on are seen as those from ``inside`` on."""

    disk: int
    inside: int
    size: int


def check(text: str) -> str:
    """The value of ``idmap=`` in canonical form (InvalidArgument)."""
    if text in ("", OWNER, "true", "1"):
        return OWNER
    if text in (CONTAINER, NONE):
        return text
    parse(text)
    return text


def parse(text: str) -> tuple[Ranges, Ranges]:
    """``uids=…;gids=…`` → ranges of users and of groups; one that is left out is as the other."""
    found: dict[str, Ranges] = {}
    for part in text.split(";"):
        kind, equals, ranges = part.partition("=")
        if not equals or kind not in ("uids", "gids") or kind in found:
            raise _wrong(text)
        found[kind] = tuple(_range(part, text) for part in ranges.split("#"))
    for ranges_ in found.values():
        _check_overlaps(ranges_, text)
    return found.get("uids") or found["gids"], found.get("gids") or found["uids"]


def _range(text: str, whole: str) -> Range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise _wrong(whole)
    found = Range(*(int(group) for group in match.groups()))
    if not found.size or max(found.disk, found.inside) + found.size > _END:
        raise _wrong(whole)
    return found


def _check_overlaps(ranges: Ranges, text: str) -> None:
    if len(ranges) > _MAX_RANGES:
        raise InvalidArgument(f"invalid idmap: more than {_MAX_RANGES} ranges")
    for starts in (sorted((r.disk, r.size) for r in ranges), sorted((r.inside, r.size) for r in ranges)):
        for (first, size), (second, _) in zip(starts, starts[1:], strict=False):
            if first + size > second:
                raise InvalidArgument(f"invalid idmap `{text}`: an id is mapped twice")


def _wrong(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"invalid idmap `{text}`",
        hint="use idmap (its owner and the container's user change places), or "
        "idmap=uids=ON_DISK-IN_CONTAINER-COUNT#…;gids=…, or in a user namespace idmap=container or none",
    )


def swap(first: int, other: int) -> Ranges:
    """Ranges that exchange two ids and map all others to themselves."""
    if first == other:
        return (Range(0, 0, _END),)
    low, high = sorted((first, other))
    parts = (
        Range(0, 0, low),
        Range(low, high, 1),
        Range(low + 1, low + 1, high - low - 1),
        Range(high, low, 1),
        Range(high + 1, high + 1, _END - high - 1),
    )
    return tuple(part for part in parts if part.size)


def resolve(snapshots: Snapshots, chain_ids: Sequence[str], user: str, points: Iterable[MountPoint]) -> None:
    """Resolve ``owner`` mappings, by each source's present owner and the image's ``user`` (RuntimeFailure)."""
    pending = [point for point in points if point.idmap == OWNER]
    if not pending:
        return
    inside = _look_up(snapshots, chain_ids, user)
    for point in pending:
        status = os.stat(point.source)
        uids, gids = swap(status.st_uid, inside.uid), swap(status.st_gid, inside.gid)
        point.idmap = f"uids={_text(uids)};gids={_text(gids)}"


def _look_up(snapshots: Snapshots, chain_ids: Sequence[str], user: str) -> users.User:
    if not chain_ids:
        name, _, group = user.partition(":")
        return users.resolve(name, group or None, [], [], [])
    root_fd = overlay.open_overlay(snapshots.view(chain_ids))
    try:
        return users.lookup(root_fd, user)
    finally:
        os.close(root_fd)


def _text(ranges: Ranges) -> str:
    return "#".join(f"{r.disk}-{r.inside}-{r.size}" for r in ranges)


def oci(text: str, within: UserNamespace | None = None) -> tuple[list[OciIdMapping], list[OciIdMapping]]:
    """``uidMappings`` and ``gidMappings`` of an OCI mount for a resolved mapping (runtime-spec, ``mounts``).

    Seen from the machine: the ids ``within`` a user namespace are others there, and those that it lacks are nobody's.
    """
    uids, gids = parse(text)
    return _entries(uids, within.uids if within else ()), _entries(gids, within.gids if within else ())


def _entries(ranges: Ranges, within: Sequence[IdRange]) -> list[OciIdMapping]:
    if not within:
        return [{"containerID": r.disk, "hostID": r.inside, "size": r.size} for r in ranges]
    found: list[OciIdMapping] = []
    for r in ranges:
        for part in within:
            first = max(r.inside, part.inside)
            size = min(r.inside + r.size, part.inside + part.size) - first
            if size > 0:
                outside = part.outside + first - part.inside
                found.append({"containerID": r.disk + first - r.inside, "hostID": outside, "size": size})
    return found
