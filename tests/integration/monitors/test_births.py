"""Processes that are born in a cgroup on the unified hierarchy, which a hybrid machine has without controllers."""

from __future__ import annotations

import os

import pytest

from ketch.linux.processes import cgroup_fork
from ketch.runtime.cgroups import birth, common
from tests.support.run.session import SESSION

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups need root")


@pytest.fixture
def cgroup():
    """An empty one, as `common.open` describes it."""
    root = common.layout().unified
    if root is None:
        pytest.skip("no unified hierarchy")
    directory = f"{root}/{SESSION}births"
    os.mkdir(directory)
    yield {"version": 2, "dir": directory}
    os.rmdir(directory)


def answer(pid, writer):
    """In the new process: say where it is, whose child, and which, and end; else wait for its end."""
    if pid == 0:
        where = common.own_paths()[""]
        os.write(writer, f"{os.path.basename(where)} {os.getppid()} {os.getpid()}".encode())
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


@pytest.fixture
def pipe():
    """What the new processes write, and where."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_process_is_born_in_it(cgroup, pipe):
    pid, inside = birth.fork(cgroup)
    answer(pid, pipe[1])
    assert inside
    assert os.read(pipe[0], 999).decode() == f"{SESSION}births {os.getpid()} {pid}"


@pytest.mark.parametrize(
    "cgroups",
    [None, {"version": 1, "dirs": {}}, {"version": 2, "dir": "/sys/fs/cgroup/none"}, {"version": 2, "dir": "/"}],
)
def test_it_is_forked_all_the_same(cgroups, pipe):
    """Without a cgroup, on v1, in one that is gone, in what is none."""
    here = os.path.basename(common.own_paths().get("", "/"))
    pid, inside = birth.fork(cgroups)
    answer(pid, pipe[1])
    assert not inside
    assert os.read(pipe[0], 999).decode() == f"{here} {os.getpid()} {pid}"


def test_directories_are_made_for_another_process():
    """It finds them, and says itself what is wrong with them."""
    if common.layout().version == 2:
        pytest.skip("one directory is not worth it")
    path = f"/{SESSION}meanwhile"
    common.make_meanwhile(path)
    try:
        assert common.exists(path)
        common.create(path, None)
    finally:
        common.at(path).remove()
    assert not common.exists(path)
    for nothing in ("", "x.slice:ketch:1", f"{path}\n", "/"):  # the kernel takes no such name
        common.make_meanwhile(nothing)
    assert not common.exists(f"{path}\n")
    assert not common.exists("x.slice:ketch:1")


def test_a_sibling(cgroup, pipe):
    """It is a child of the parent, which hears of its end."""
    passing = os.fork()
    if passing == 0:
        fd = os.open(cgroup["dir"], os.O_PATH | os.O_DIRECTORY)
        if cgroup_fork.fork(fd, sibling=True) == 0:
            answer(0, pipe[1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(passing, 0)[1]) == 0
    where, parent, pid = os.read(pipe[0], 999).decode().split()
    assert (where, int(parent)) == (f"{SESSION}births", os.getpid())
    assert os.waitstatus_to_exitcode(os.waitpid(int(pid), 0)[1]) == 5
