"""User namespaces of containers: which ids of the machine the ids inside are, and what ``UsernsMode`` asks for.

On the disk everything keeps the ids that it has inside: layers, what a container writes, volumes.  The runtime mounts
them id-mapped, so an image is there once, however many containers run it, each as other users of the machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.errors import InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.runtime.oci_types import OciIdMapping
    from ketch.storage.snapshots.overlay import SnapshotMount

DEFAULT_SIZE = 65536
_LAST_ID = 2**32 - 2  # (uid_t)-1 is none
NOBODY = 65534  # what the kernel shows for an id that is not mapped


class IdRange(msgspec.Struct, frozen=True):
    """``size`` ids from ``inside`` on are those from ``outside`` on of the machine."""

    inside: int
    outside: int
    size: int

    @property
    def end(self) -> int:
        """The first id outside that is no more in the range."""
        return self.outside + self.size


class UserNamespace(msgspec.Struct, frozen=True, kw_only=True):
    """The mappings of a user namespace."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @classmethod
    def of_range(cls, first: int, size: int) -> UserNamespace:
        """The namespace whose users and groups are one range of the pool's ids."""
        ids = (IdRange(0, first, size),)
        return cls(uids=ids, gids=ids)

    @property
    def size(self) -> int:
        """The number of its users, from 0 on."""
        return sum(part.size for part in self.uids)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids of the machine for a user and a group inside (InvalidArgument: it has none)."""
        return _outside(self.uids, uid, "user"), _outside(self.gids, gid, "group")

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids inside for a user and a group of the machine; `NOBODY` where there is none, as in the kernel."""
        return _inside(self.uids, uid), _inside(self.gids, gid)

    def oci(self) -> tuple[list[OciIdMapping], list[OciIdMapping]]:
        """``uidMappings`` and ``gidMappings`` of OCI's ``linux`` (runtime-spec, config-linux)."""
        return _oci(self.uids), _oci(self.gids)


def _outside(ranges: Sequence[IdRange], ident: int, what: str) -> int:
    for part in ranges:
        if part.inside <= ident < part.inside + part.size:
            return part.outside + ident - part.inside
    known = sum(part.size for part in ranges)
    raise InvalidArgument(
        f"{what} {ident} does not exist in a user namespace of {known} ids", hint="see --userns auto:size=COUNT"
    )


def _inside(ranges: Sequence[IdRange], ident: int) -> int:
    for part in ranges:
        if part.outside <= ident < part.end:
            return part.inside + ident - part.outside
    return NOBODY


def _oci(ranges: Sequence[IdRange]) -> list[OciIdMapping]:
    return [{"containerID": part.inside, "hostID": part.outside, "size": part.size} for part in ranges]


def through(namespace: UserNamespace | None, mounts: list[SnapshotMount]) -> list[SnapshotMount]:
    """The mounts of a root, seen through a user namespace's mapping."""
    if namespace is None:
        return mounts
    return [{**mount, "options": [*mount["options"], "idmap"]} for mount in mounts]


class UsernsKind(StrEnum):
    """The kinds of user namespaces that a container can ask for."""

    DEFAULT = ""  # the daemon's: --userns-default, --userns-remap
    HOST = "host"
    AUTO = "auto"


class UsernsMode(NamedTuple):
    """``UsernsMode``, parsed; ``size`` is how many ids an AUTO one is to have."""

    kind: UsernsKind
    size: int = DEFAULT_SIZE

    @classmethod
    def parse(cls, text: str) -> UsernsMode:
        """``host``, ``auto[:size=COUNT]``, ``private`` or nothing (the daemon's default); else InvalidArgument."""
        if text in ("", "private"):
            return cls(UsernsKind.DEFAULT)
        if text == "host":
            return cls(UsernsKind.HOST)
        word, _, rest = text.partition(":")
        if word != "auto":
            raise InvalidArgument(f"invalid user namespace mode: {text}", hint="use host, auto or auto:size=COUNT")
        if not rest:
            return cls(UsernsKind.AUTO)
        key, _, value = rest.partition("=")
        size = digits.whole(value, _LAST_ID)
        if key != "size" or not size:
            raise InvalidArgument(f"invalid user namespace mode: {text}", hint="write auto:size=COUNT")
        return cls(UsernsKind.AUTO, size)
