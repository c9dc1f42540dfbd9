"""Owners in the attributes of files that are seen through a user namespace's mapping."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.namespaces.user import UserNamespace
from ketch.storage.archive import owners

NAMESPACE = UserNamespace.of_range(100000, 65536)
IDS = st.integers(0, 65535)
SETS = bytes(range(16))


def capability(root: int | None, flags: int = 1) -> bytes:
    if root is None:
        return struct.pack("<I", 0x02000000 | flags) + SETS
    return struct.pack("<I", 0x03000000 | flags) + SETS + struct.pack("<I", root)


def test_capabilities_of_any_root_are_those_of_the_containers():
    on_file = {"security.capability": capability(100000)}
    assert owners.on_files({"security.capability": capability(None)}, NAMESPACE) == on_file
    assert owners.archived([(b"security.capability", capability(100000))], NAMESPACE) == [
        (b"security.capability", capability(None))
    ]


@given(IDS, st.sampled_from([0, 1]))
def test_capabilities_of_one_root_are_his(root: int, flags: int) -> None:
    inside = capability(root or None, flags)
    found = owners.on_files({"security.capability": inside}, NAMESPACE)
    assert found == {"security.capability": capability(100000 + root, flags)}
    assert owners.archived([(b"security.capability", found["security.capability"])], NAMESPACE) == [
        (b"security.capability", inside)
    ]


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(0, 7), IDS)))
def test_lists_name_the_machines_users_on_files(entries: list[tuple[int, int, int]]) -> None:
    def acl(shift: int) -> bytes:
        return struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", tag, rights, ident + (shift if tag in (2, 8) else 0)) for tag, rights, ident in entries
        )

    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        assert owners.on_files({name: acl(0)}, NAMESPACE) == {name: acl(100000)}
        assert owners.archived([(name.encode(), acl(100000))], NAMESPACE) == [(name.encode(), acl(0))]


@given(st.binary(max_size=40), st.sampled_from(["user.x", "security.selinux", "security.capability"]))
def test_other_attributes_and_values_that_are_none_stay(value: bytes, name: str) -> None:
    if name == "security.capability" and len(value) in (20, 24):
        value = b"\0\0\0\7" + value[4:]
    assert owners.on_files({name: value}, NAMESPACE) == {name: value}
