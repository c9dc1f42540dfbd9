"""Reading a few numbers out of cgroup files."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.stats.usage import percent
from ketch.runtime.cgroups import common, files, gauge, tree
from ketch.runtime.cgroups.v2.manager import CgroupV2
from tests.support.waiting import patient

KEYS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


@given(st.dictionaries(KEYS, st.integers(0, 2**64), max_size=8), KEYS)
def test_a_value_is_found_as_in_the_whole(values: dict[str, int], key: str) -> None:
    text = "".join(f"{k} {v}\n" for k, v in values.items())
    assert gauge.value_of(text.encode(), key.encode()) == files.pairs(text).get(key, 0)
    assert gauge.value_of(text.rstrip("\n").encode(), key.encode()) == values.get(key, 0)


def test_a_key_that_ends_in_another() -> None:
    assert gauge.value_of(b"total_inactive_file 5\ninactive_file 7\n", b"inactive_file") == 7
    assert gauge.value_of(b"inactive_file_x 5", b"inactive_file") == 0


def test_bytes_moved() -> None:
    v1 = b"8:0 Read 4096\n8:0 Write 10\n8:0 Sync 1\n8:16 Read 4\n8:0 Total 4106\nTotal 4110\n"
    assert gauge.moved_v1(v1) == (4100, 10)
    v2 = b"8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=4 wbytes=0\n"
    assert gauge.moved_v2(v2) == (4100, 10)
    assert gauge.moved_v1(b"Total 0\n") == gauge.moved_v2(b"") == (0, 0)


def test_percent() -> None:
    assert percent((1_000, 500), (2_000, 1_500)) == 100.0
    assert percent(None, (2_000, 1_500)) is None
    assert percent((1_000, 500), (2_000, 100)) is None  # it was started again meanwhile


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a cgroup")
def test_the_unified_hierarchy() -> None:
    root = common.layout().unified
    if root is None:
        pytest.skip("this machine has none")
    cgroup = CgroupV2(f"{root}/kt-gauge-{os.getpid()}", root)
    assert gauge._unified(cgroup) is None
    cgroup.make()
    try:
        script = f"echo $$ > {cgroup.directory}/cgroup.procs; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
        subprocess.run(["sh", "-c", script], check=True, timeout=patient(20))
        reading = gauge._unified(cgroup)
    finally:
        cgroup.remove()
    assert reading is not None
    assert reading.cpu_ns > 1_000_000
    assert gauge._unified(cgroup) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups")
def test_cgroups_that_are_deeper_than_the_stack() -> None:
    """The stack is made small instead: other tests here look at all cgroups that there are."""
    here = common.layout()
    root = here.unified or here.hierarchies["pids"]
    top, limit = f"{root}/kt-deep-{os.getpid()}", sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 50)
    try:
        tree.make(top + "/d" * 300)
        for number in range(3):
            os.mkdir(f"{top}{'/d' * 150}/{number}")
        with subprocess.Popen(["sleep", "100"]) as sleeper:
            try:
                files.write(top + "/d" * 200, "cgroup.procs", sleeper.pid)
                assert tree.pids(top) == [sleeper.pid]
                with pytest.raises(OSError, match="busy"):
                    tree.remove(top, 0.01)
            finally:
                sleeper.kill()
        tree.remove(top)
    finally:
        sys.setrecursionlimit(limit)
    assert not os.path.exists(top)
    assert tree.pids(top) == []
