"""The pool of ``--userns auto``: ranges that nobody else has, and whose the pool is."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.model.namespaces.user import UserNamespace
from ketch.engine.userns import pool
from ketch.engine.userns.pool import IdPool
from ketch.engine.userns.subids import SubIdFiles
from ketch.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = 3_000_000_000 + os.getpid() * 100  # the lock of a pool is the whole machine's


@pytest.fixture
def files(tmp_path: Path) -> SubIdFiles:
    return SubIdFiles(str(tmp_path / "subuid"), str(tmp_path / "subgid"))


@contextlib.contextmanager
def _pool(source: str, files: SubIdFiles | None = None, owner: str = "/") -> Iterator[IdPool]:
    found = IdPool(source, files or SubIdFiles("/nonexistent/subuid", "/nonexistent/subgid"), owner)
    try:
        yield found
    finally:
        found.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=40))
def test_no_id_belongs_to_two(steps: list[tuple[bool, int]]) -> None:
    containers: list[UserNamespace] = []
    with _pool(f"{FIRST}:100") as ids:
        for adds, number in steps:
            if not adds and containers:
                containers.pop(number % len(containers))
                continue
            try:
                with ids.reserved(number, containers) as found:
                    containers.append(found)
            except FailedPrecondition:  # then there is no gap that is large enough
                used = {i for c in containers for part in c.uids for i in range(part.outside, part.end)}
                free = "".join("x" if FIRST + i in used else "." for i in range(100))
                assert "." * number not in free
        has = [i for c in containers for part in c.uids for i in range(part.outside, part.end)]
        assert len(has) == len(set(has))
        assert all(FIRST <= i < FIRST + 100 for i in has)


def test_a_reserved_range_is_nobody_elses_and_free_afterwards() -> None:
    with _pool(f"{FIRST}:100") as ids:
        with ids.reserved(60, []) as first:
            with pytest.raises(FailedPrecondition, match="of the 100 from"), ids.reserved(60, []):
                pass
            with ids.reserved(40, []) as second:
                assert second.uids[0].outside == first.uids[0].end
        with ids.reserved(60, []) as again:
            assert again == first


def test_a_range_is_not_given_out_again_while_others_were_never_used() -> None:
    with _pool(f"{FIRST}:100") as ids:
        one, two = UserNamespace.of_range(FIRST, 10), UserNamespace.of_range(FIRST + 10, 10)
        with ids.reserved(10, [two]) as found:  # `one` has just gone
            assert found.uids[0].outside == FIRST + 20
        full = UserNamespace.of_range(FIRST + 10, 90)
        with ids.reserved(10, [full]) as found:
            assert found == one


def test_a_pool_is_one_daemons(files: SubIdFiles) -> None:
    with _pool(f"{FIRST}:100") as one, _pool(f"{FIRST}:100") as other:
        with one.reserved(1, []):
            pass
        with pytest.raises(FailedPrecondition, match=f"the daemon of process {os.getpid()}"), other.reserved(1, []):
            pass
        one.close()
        with other.reserved(1, []):
            pass


def test_ketch_gets_a_pool_where_nobody_has_ids(files: SubIdFiles) -> None:
    with open(files.uids, "w", encoding="ascii") as f:
        f.write("ann:100000:65536\nben:2000683008:1000\n")
    with _pool("ketch", files) as ids:
        with contextlib.suppress(FailedPrecondition), ids.reserved(65536, []) as found:
            assert found.uids[0].outside == 2000683008 + 1000
        for path in files:
            with open(path, encoding="ascii") as f:
                assert f.read().endswith("ketch:2000684008:146668568\n")


def test_the_ids_of_a_named_user_are_those_in_both_files(files: SubIdFiles) -> None:
    for path, text in zip(files, (f"ann:{FIRST}:80\nann:5:3\n", f"ann:{FIRST + 20}:80\nann:9:9\n"), strict=True):
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
    with _pool("ann", files) as ids, ids.reserved(60, []) as found:
        assert found == UserNamespace.of_range(FIRST + 20, 60)
    with _pool("ben", files) as ids, pytest.raises(FailedPrecondition, match="ben has no range"), ids.reserved(1, []):
        pass


@pytest.mark.parametrize("text", [":", "1:", ":1", "a:1", "1:0", "0:5", "4294967295:1", "1:2:3", "4294967290:6"])
def test_a_pool_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid --userns-pool"):
        pool.check(text)


@pytest.mark.parametrize("text", ["ketch", "1:1", "4294967290:5"])
def test_a_pool_is_a_user_or_numbers(text: str) -> None:
    pool.check(text)


def test_a_range_is_not_given_out_twice_in_a_row() -> None:
    """Also when nobody took it in the end: a build's command is over sooner than its files are looked at."""
    with _pool(f"{FIRST}:100") as ids:
        firsts = []
        for _ in range(11):
            with ids.reserved(10, []) as found:
                firsts.append(found.uids[0].outside - FIRST)
        assert firsts == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 0]


def test_pools_that_overlap_are_one_daemons() -> None:
    with _pool(f"{FIRST}:100") as one, _pool(f"{FIRST + 99}:5") as other, _pool(f"{FIRST + 100}:5") as third:
        one.opened()
        with pytest.raises(FailedPrecondition, match=f"the daemon of process {os.getpid()} gives them out"):
            other.opened()
        third.opened()


def test_a_daemon_that_is_down_keeps_the_pool_while_its_containers_have_ids(tmp_path: Path) -> None:
    """They may run; a data root that is gone has none."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    held = [UserNamespace.of_range(FIRST, 10)]
    with _pool(f"{FIRST}:100", owner=str(mine)) as ids:
        ids.opened()
        ids.close(held)
    with _pool(f"{FIRST + 50}:100", owner=str(other)) as ids:
        with pytest.raises(FailedPrecondition, match=f"containers of the data root `{mine}` have some"):
            ids.opened()
    with _pool(f"{FIRST}:100", owner=str(mine)) as ids:
        ids.keep(held)
        ids.close(held)
    mine.rmdir()
    with _pool(f"{FIRST + 50}:100", owner=str(other)) as ids:
        ids.opened()


def test_ids_of_a_former_pool_stay_their_daemons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its containers keep them, whatever --userns-pool says since; the machine may have been started anew."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    held = [UserNamespace.of_range(FIRST + first, 10) for first in (0, 10, 95)]
    with _pool(f"{FIRST + 100}:50", owner=str(mine)) as ids, _pool(f"{FIRST + 5}:5", owner=str(other)) as second:
        ids.keep(held)
        for _ in range(2):  # while it runs, and while its containers are there
            with pytest.raises(FailedPrecondition, match=r"gives them out|containers of the data root"):
                second.opened()
            ids.close(held)
        ids.keep(held)
        with _pool(f"{FIRST + 30}:65", owner=str(other)) as third:
            third.opened()
        ids.close()
        second.opened()
        ids.keep(held)
        assert "user namespaces of containers that are here" in caplog.text


def test_the_pool_may_have_ids_of_a_former_one(tmp_path: Path) -> None:
    files = SubIdFiles(str(tmp_path / "subuid"), str(tmp_path / "subgid"))
    with _pool("alice", files, owner=str(tmp_path)) as ids:
        ids.keep([UserNamespace.of_range(FIRST, 10)])
        for path in files:
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"alice:{FIRST}:100\n")
        assert ids.opened().size == 100
