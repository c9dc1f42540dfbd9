"""Owners of files in a tree that is seen through a user namespace's mapping, and in archives, which know no mapping.

A container in a user namespace has users of its own: its root is, say, user 100000 of the machine, and so its files
are for whoever looks from the machine.  An archive of them is to say root.  Two attributes name users as well:
capabilities of programs (the root for whom they count, capabilities(7)), and access control lists (acl(5)).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[[int, int], tuple[int, int]]

_CAPABILITY, _ACLS = "security.capability", ("system.posix_acl_access", "system.posix_acl_default")
_V2, _V3, _REVISION = 0x02000000, 0x03000000, 0xFF000000  # linux/capability.h: VFS_CAP_REVISION_MASK
_V2_SIZE, _V3_SIZE = 20, 24
_ACL_USER, _ACL_GROUP = 0x02, 0x08  # linux/posix_acl_xattr.h
_ACL_HEADER, _ACL_ENTRY = 4, struct.Struct("<HHI")


class Owners(Protocol):
    """A user namespace, as archives need it."""

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The machine's ids for those inside (InvalidArgument: there are none)."""

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids inside for the machine's."""


class Shifted(NamedTuple):
    """A user namespace in which the ids from 0 on, so many, are those of the machine from ``uid`` and ``gid`` on.

    Ids beyond it are the same inside and outside: files may belong to users whom it does not have.
    """

    uid: int
    gid: int
    ids: int

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The machine's ids for those inside."""
        return uid + self.uid if uid < self.ids else uid, gid + self.gid if gid < self.ids else gid

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids inside for the machine's."""
        below, among = uid - self.uid, gid - self.gid
        return below if 0 <= below < self.ids else uid, among if 0 <= among < self.ids else gid


def archived(attributes: Iterable[tuple[bytes, bytes]], owners: Owners) -> list[tuple[bytes, bytes]]:
    """A file's extended attributes as an archive has them."""
    names = ((name, name.decode("utf-8", "surrogateescape"), value) for name, value in attributes)
    return [(name, _translated(text, value, owners.inside)) for name, text, value in names]


def on_files(attributes: dict[str, bytes], owners: Owners) -> dict[str, bytes]:
    """An archive's extended attributes as they are to be set from outside (InvalidArgument)."""
    return {name: _translated(name, value, owners.outside) for name, value in attributes.items()}


def seen_inside(name: str, value: bytes, owners: Owners) -> bytes:
    """An extended attribute as it is inside."""
    return _translated(name, value, owners.inside)


def _translated(name: str, value: bytes, ids: Map) -> bytes:
    if name == _CAPABILITY and len(value) in (_V2_SIZE, _V3_SIZE):
        return _capability(value, ids)
    if name in _ACLS:
        return _acl(value, ids)
    return value


def _capability(value: bytes, ids: Map) -> bytes:
    """Capabilities that count for the mapped root: those of no particular root (version 2) are those of root 0."""
    [magic] = struct.unpack_from("<I", value)
    if magic & _REVISION not in (_V2, _V3):
        return value
    [root] = struct.unpack_from("<I", value, _V2_SIZE) if len(value) == _V3_SIZE else [0]
    root, _ = ids(root, 0)
    flags = magic & ~_REVISION
    if not root:
        return struct.pack("<I", _V2 | flags) + value[4:_V2_SIZE]
    return struct.pack("<I", _V3 | flags) + value[4:_V2_SIZE] + struct.pack("<I", root)


def _acl(value: bytes, ids: Map) -> bytes:
    result = bytearray(value)
    for at in range(_ACL_HEADER, len(value) - _ACL_ENTRY.size + 1, _ACL_ENTRY.size):
        tag, rights, ident = _ACL_ENTRY.unpack_from(value, at)
        if tag == _ACL_USER:
            ident, _ = ids(ident, 0)
        elif tag == _ACL_GROUP:
            _, ident = ids(0, ident)
        _ACL_ENTRY.pack_into(result, at, tag, rights, ident)
    return bytes(result)
