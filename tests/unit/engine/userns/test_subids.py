"""Subordinate ids: their files, and the ranges in them that are free."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.userns import subids
from ketch.engine.userns.subids import SubIdFiles, SubIds
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


IDS = SubIds("ketch", 100, 50)


@pytest.fixture
def files(tmp_path: Path) -> SubIdFiles:
    return SubIdFiles(str(tmp_path / "subuid"), str(tmp_path / "subgid"))


def _give(files: SubIdFiles, ids: SubIds = IDS) -> None:
    subids.give(files, "ketch", lambda _taken: ids)


def test_a_line_is_added_to_what_is_there(files: SubIdFiles, tmp_path: Path) -> None:
    (tmp_path / "subuid").write_bytes(b"ann:1:2\n\xffben:3:4")
    _give(files)
    assert (tmp_path / "subuid").read_bytes() == b"ann:1:2\n\xffben:3:4\nketch:100:50\n"
    assert (tmp_path / "subgid").read_text() == "ketch:100:50\n"
    assert stat.S_IMODE((tmp_path / "subuid").stat().st_mode) == 0o644
    assert sorted(os.listdir(tmp_path)) == ["subgid", "subuid"]
    _give(files, SubIds("ketch", 1000, 1))  # who has ids keeps them
    assert (tmp_path / "subgid").read_text() == "ketch:100:50\n"


def test_a_line_that_one_file_has_is_put_into_the_other(files: SubIdFiles, tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("ketch:7:3\n")
    _give(files)
    assert (tmp_path / "subgid").read_text() == "ketch:7:3\n"
    (tmp_path / "subgid").write_text("ann:9:9\n")
    with pytest.raises(FailedPrecondition, match="give ketch 3 ids from 7 on: others have some of them"):
        _give(files)
    assert (tmp_path / "subgid").read_text() == "ann:9:9\n"


def test_ids_are_chosen_while_nobody_else_can(files: SubIdFiles, tmp_path: Path) -> None:
    (tmp_path / "subgid").write_text("ann:9:9\n")

    def choose(taken: list[SubIds]) -> SubIds:
        assert taken == [SubIds("ann", 9, 9)]
        assert {"subuid.lock", "subgid.lock"} <= set(os.listdir(tmp_path))
        return IDS

    subids.give(files, "ketch", choose)
    assert sorted(os.listdir(tmp_path)) == ["subgid", "subuid"]


def test_a_file_that_another_program_changes_is_waited_for(files: SubIdFiles, tmp_path: Path) -> None:
    lock = tmp_path / "subuid.lock"
    lock.write_text("1")
    threading.Timer(0.2, lock.unlink).start()
    _give(files)
    assert (tmp_path / "subuid").read_text() == "ketch:100:50\n"


def test_the_lock_of_a_process_that_has_ended_is_removed(files: SubIdFiles, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "subuid.lock").write_text(f"{ended.pid}\0")
    _give(files)
    assert sorted(os.listdir(tmp_path)) == ["subgid", "subuid"]


def test_a_lock_that_stays_is_an_error_that_names_it(
    files: SubIdFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subids, "_PATIENCE_S", 0.0)
    (tmp_path / "subgid.lock").write_text("1")
    with pytest.raises(FailedPrecondition, match=r"subgid\.lock` is there"):
        _give(files)
    assert os.listdir(tmp_path) == ["subgid.lock"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"change `.*: No such file") as e:
        _give(SubIdFiles(str(tmp_path / "none/subuid"), str(tmp_path / "none/subgid")))
    assert e.value.hint is not None
    assert "yourself" in e.value.hint
