"""Mappings of owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.namespaces.user import IdRange, UserNamespace
from ketch.engine.volumes import idmaps
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciIdMapping

ID = st.integers(0, 2**32 - 2)


@given(ID, ID, ID)
def test_two_ids_change_places_and_all_others_stay(one: int, other: int, third: int) -> None:
    ranges = idmaps.swap(one, other)
    assert sum(r.size for r in ranges) == 2**32 - 1

    def seen(disk: int) -> int:
        (found,) = [r for r in ranges if r.disk <= disk < r.disk + r.size]
        return found.inside + disk - found.disk

    assert (seen(one), seen(other)) == (other, one)
    if third not in (one, other):
        assert seen(third) == third


@given(ID, ID)
def test_stored_mappings_are_read_back(one: int, other: int) -> None:
    text = "uids=" + "#".join(f"{r.disk}-{r.inside}-{r.size}" for r in idmaps.swap(one, other))
    uids, gids = idmaps.parse(text)
    assert uids == gids == idmaps.swap(one, other)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "uids=",
        "uids=1-2",
        "uids=1-2-0",
        "uids=0-0-4294967296",
        "uids=0-0-2#1-5-1",
        "uids=0-5-1#9-5-1",
        "uids=1-1-1;uids=1-1-1",
        "gids=1-1-1;",
        "uids=-1-1-1",
        "uids=٣-1-1",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="idmap"):
        idmaps.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_mapping_or_refused(text: str) -> None:
    try:
        assert idmaps.check(text)
    except InvalidArgument as e:
        assert e.hint or e.message


WITHIN = UserNamespace(uids=(IdRange(0, 100000, 1000), IdRange(1000, 500000, 500)), gids=(IdRange(0, 200000, 10),))


@given(ID, ID, st.integers(0, 2000))
def test_in_a_user_namespace_ids_on_disk_are_those_of_the_machine(one: int, other: int, disk: int) -> None:
    uids, gids = idmaps.oci(
        "uids=" + "#".join(f"{r.disk}-{r.inside}-{r.size}" for r in idmaps.swap(one, other)), WITHIN
    )

    def seen(entries: list[OciIdMapping], ident: int) -> list[int]:
        return [
            e["hostID"] + ident - e["containerID"]
            for e in entries
            if e["containerID"] <= ident < e["containerID"] + e["size"]
        ]

    inside = {one: other, other: one}.get(disk, disk)
    assert seen(uids, disk) == ([WITHIN.outside(inside, 0)[0]] if inside < 1500 else [])
    assert seen(gids, disk) == ([200000 + inside] if inside < 10 else [])
