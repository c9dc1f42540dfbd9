"""Subordinate ids: their files, and the ranges in them that are free."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.userns import subids
from ketch.engine.userns.subids import SubIds
from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_that_are_no_ranges_are_overlooked(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_bytes(
        b"# a:1:2\nann:100000:65536\n\nann:x:1\nben:5\n1000:7:3\nann:1:0\nann:4294967295:1\n\xff:9:9\nann:5:6:7\n"
    )
    assert subids.read(str(file)) == [
        SubIds("ann", 100000, 65536),
        SubIds("1000", 7, 3),
        SubIds("\udcff", 9, 9),
    ]
    assert subids.of_owner(str(file), "ann", "1000") == [SubIds("ann", 100000, 65536), SubIds("1000", 7, 3)]
    assert subids.read(str(tmp_path / "none")) == []


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50))), st.integers(0, 100), st.integers(0, 250))
def test_gaps_are_all_that_nobody_has(taken: list[tuple[int, int]], first: int, end: int) -> None:
    has = {ident for start, count in taken for ident in range(start, start + count)}
    found = subids.gaps([SubIds("x", start, count) for start, count in taken], first, end)
    assert {i for start, count in found for i in range(start, start + count)} == set(range(first, end)) - has
    assert all(count > 0 for _, count in found)
    assert found == sorted(found)
    assert subids.largest_gap([SubIds("x", *one) for one in taken], first, end)[1] == max(
        (c for _, c in found), default=0
    )


def test_a_line_is_added_to_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_bytes(b"ann:1:2\n\xffben:3:4")
    subids.add(str(file), SubIds("ketch", 100, 50))
    assert file.read_bytes() == b"ann:1:2\n\xffben:3:4\nketch:100:50\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["subuid"]


def test_a_file_that_is_missing_is_made(tmp_path: Path) -> None:
    subids.add(str(tmp_path / "subgid"), SubIds("ketch", 100, 50))
    assert (tmp_path / "subgid").read_text() == "ketch:100:50\n"


def test_a_file_that_another_program_changes_is_waited_for(tmp_path: Path) -> None:
    file, lock = tmp_path / "subuid", tmp_path / "subuid.lock"
    lock.write_text("1")
    threading.Timer(0.2, lock.unlink).start()
    subids.add(str(file), SubIds("ketch", 1, 2))
    assert file.read_text() == "ketch:1:2\n"


def test_a_lock_that_stays_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subids, "_PATIENCE_S", 0.0)
    (tmp_path / "subuid.lock").write_text("1")
    with pytest.raises(FailedPrecondition, match=r"subuid\.lock` is there"):
        subids.add(str(tmp_path / "subuid"), SubIds("ketch", 1, 2))
    assert os.listdir(tmp_path) == ["subuid.lock"]


def test_a_directory_that_cannot_be_written_is_an_error_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"add `ketch:1:2` to .*: No such file") as e:
        subids.add(str(tmp_path / "none" / "subuid"), SubIds("ketch", 1, 2))
    assert e.value.hint is not None
    assert "yourself" in e.value.hint
