"""User namespaces: what is asked for, and which ids are which."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.namespaces.user import NOBODY, IdRange, UserNamespace, UsernsKind, UsernsMode
from ketch.errors import InvalidArgument

REMAPPED = UserNamespace(uids=(IdRange(0, 100000, 1000), IdRange(1000, 5000, 100)), gids=(IdRange(0, 200000, 65536),))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", UsernsMode(UsernsKind.DEFAULT)),
        ("private", UsernsMode(UsernsKind.DEFAULT)),
        ("host", UsernsMode(UsernsKind.HOST)),
        ("auto", UsernsMode(UsernsKind.AUTO, 65536)),
        ("auto:size=4096", UsernsMode(UsernsKind.AUTO, 4096)),
    ],
)
def test_a_mode(text: str, mode: UsernsMode) -> None:
    assert UsernsMode.parse(text) == mode


@pytest.mark.parametrize(
    "text",
    ["HOST", "container:x", "keep-id", "auto:size=0", "auto:size=", "auto:x=1", "auto:size=-1", "auto:size=1,x=2"],
)
def test_another_word_is_no_mode(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid user namespace mode: {text}"):
        UsernsMode.parse(text)


@given(st.integers(0, 1099), st.integers(0, 65535))
def test_ids_inside_are_ids_outside_and_back(uid: int, gid: int) -> None:
    outside = REMAPPED.outside(uid, gid)
    assert outside == (100000 + uid if uid < 1000 else 4000 + uid, 200000 + gid)
    assert REMAPPED.inside(*outside) == (uid, gid)


def test_ids_that_are_not_mapped() -> None:
    assert REMAPPED.inside(0, 0) == (NOBODY, NOBODY)
    with pytest.raises(InvalidArgument, match="user 1100 does not exist in a user namespace of 1100 ids"):
        REMAPPED.outside(1100, 0)
    with pytest.raises(InvalidArgument, match="group 65536 does not exist"):
        REMAPPED.outside(0, 65536)


def test_a_record_is_read_back() -> None:
    for namespace in (REMAPPED, UserNamespace.of_range(7, 9)):
        assert msgspec.json.decode(msgspec.json.encode(namespace), type=UserNamespace) == namespace
    assert UserNamespace.of_range(7, 9).oci() == ([{"containerID": 0, "hostID": 7, "size": 9}],) * 2
