"""The same on Docker's daemon, which has neither sessions nor requests of ours: what differs is said."""

from __future__ import annotations

import pytest

import ketch
from ketch.aio.waiting import finished
from ketch.errors import Conflict, NotFound, ProgramNotFound, Unimplemented


@pytest.fixture(scope="module")
def python(dockerd):
    dockerd.add_busybox()
    with ketch.connect(dockerd.host) as one:
        yield one


def test_programs(python):
    result = python.run("busybox", "cat; echo $A >&2; exit 3", input=b"x" * (1 << 20), env={"A": "b"})
    assert (result.exit_code, len(result.stdout), result.stderr) == (3, 1 << 20, b"b\n")
    with pytest.raises(ketch.TimedOut) as late:
        python.run("busybox", "echo before; sleep 1000", timeout=4)
    assert late.value.result.text == "before\n"
    with pytest.raises(ProgramNotFound):
        python.run("busybox", ["/none"])
    with python.container("busybox") as box:
        assert box.exec(["cat"], input="abc").text == "abc"
        box.put("/a/b", {"c": b"1"})
        assert box.get("/a/b/c") == b"1"
        with box.popen("read a; echo $a; exit 4") as program:
            program.write("word\n")
            assert list(program.lines()) == [("stdout", b"word\n")]
            assert program.wait() == 4
        known = box.inspect
        ident = box.id
    with pytest.raises(Conflict):
        known()
    http = finished(python.access.http())
    with pytest.raises(NotFound):
        finished(http.request("GET", f"/containers/{ident}/json"))


def test_an_exec_cannot_be_killed(python):
    """Docker's API has no way to, and no option of ours pretends."""
    with python.container("busybox") as box:
        with pytest.raises(Unimplemented, match="kills no exec"):
            box.exec(["sleep", "1000"], timeout=0.5)
        with pytest.raises(Unimplemented, match="kills no exec"), box.popen(["sleep", "1000"]):
            pass
