"""Failpoints, and agreement of code, documentation and crash matrix."""

from __future__ import annotations

import ast
import collections
import contextvars
import errno
import os
import re
import subprocess
import sys

import pytest

from ketch import failpoints
from tests.support.boxes.crash_matrix import CASES, ELSEWHERE
from tests.support.source.project import ROOT, containing, parsed


def points_in_code() -> list[str]:
    """Every name that is handed to `failpoint`, also by an ExitStack."""
    found = []
    for path in containing("failpoint", "src"):
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) == "failpoint" or ast.unparse(node.args[0]) == "failpoint":
                texts = [c.value for a in node.args for c in ast.walk(a) if isinstance(c, ast.Constant)]
                found += [text for text in texts if isinstance(text, str)]
    return found


def points_in_table() -> list[str]:
    with open(os.path.join(ROOT, "docs/crash-safety.md"), encoding="utf-8") as f:
        return re.findall(r"^\| `([a-z0-9-]+\.[a-z0-9-]+)` \| .+ \|$", f.read(), re.MULTILINE)


def test_each_point_is_in_one_place_and_in_the_table():
    code, table = collections.Counter(points_in_code()), collections.Counter(points_in_table())
    assert [name for name, number in code.items() if number > 1] == []
    assert [name for name, number in table.items() if number > 1] == []
    assert set(code) == set(table)
    assert len(code) >= 60


def test_the_matrix_visits_all_of_them():
    assert {case.point for case in CASES} | set(ELSEWHERE) == set(points_in_table())


@pytest.mark.parametrize(
    ("text", "at", "number"),
    [("a.b", 1, 0), ("a.b:3", 3, 0), ("a.b=enospc", 0, errno.ENOSPC), ("a.b=EMFILE:2", 2, errno.EMFILE)],
)
def test_armed_failpoints(text, at, number):
    fault = failpoints.Fault(text, "")
    assert (fault.name, fault.at, fault.errno) == ("a.b", at, number)


@pytest.mark.parametrize("text", ["a.b:x", "a.b=enosuch", "a.b:"])
def test_invalid_failpoints(text):
    with pytest.raises(ValueError, match="KETCH_FAULT"):
        failpoints.Fault(text, "")


def test_a_point_strikes_at_its_passage(tmp_path):
    loop = "for n in range(4): failpoint('x.y'); failpoint('a.b'); print(n, flush=True)"
    code = f"from ketch.failpoints import failpoint\n{loop}"
    environment = {**os.environ, "KETCH_FAULT": "a.b:3", "KETCH_FAULT_TRACE": f"{tmp_path}/trace"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "0\n1\n")
    assert (tmp_path / "trace").read_text(encoding="utf-8").split()[0] == "a.b"


def test_passages_are_noted_for_those_who_follow(monkeypatch):
    monkeypatch.setattr(failpoints, "_followed", failpoints._Followed())
    assert failpoints.followed() is None
    failpoints.passage("b.a")
    noted = failpoints.follow()
    failpoints.failpoint("b.b")
    failpoints.follow_no_more()
    failpoints.passage("b.c")
    assert [name for name, _ in noted] == ["b.b"]
    failpoints.follow_by_task()

    def elsewhere() -> None:
        assert failpoints.followed() is None
        failpoints.follow()
        failpoints.failpoint("a.c")

    failpoints.failpoint("a.a")
    passages = failpoints.follow()
    failpoints.failpoint("a.b")
    contextvars.Context().run(elsewhere)
    contextvars.copy_context().run(failpoints.passage, "a.d")
    assert failpoints.followed() is passages
    failpoints.follow_no_more()
    failpoints.failpoint("a.e")
    assert [name for name, _ in passages] == ["a.b", "a.d"]
    assert passages[0][1] <= passages[1][1]


def test_a_point_raises():
    fault = failpoints.Fault("a.b=eio:2", "")
    fault.trigger()
    with pytest.raises(OSError, match="Input/output") as caught:
        fault.trigger()
    assert caught.value.errno == errno.EIO
    fault.trigger()
