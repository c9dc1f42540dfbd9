"""The crash matrix: a process is killed at each failpoint of docs/crash-safety.md."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.boxes import crash_cases as c
from tests.support.boxes.crash_box import Box
from tests.support.boxes.crash_matrix import CASES, Case
from tests.support.run import variants
from tests.support.waiting import patient


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest):
    one = Box(rootless=request.config.getoption("--rootless"))
    try:
        yield one
        one.recover()
        numbers = one.whole_log()
    finally:
        left = one.delete()
    assert numbers == list(range(len(numbers))), "the log of a container that went on has a gap"
    assert left == []


@pytest.mark.ketch_only
@pytest.mark.parametrize("case", CASES, ids=[f"{case}-{n}" for n, case in enumerate(CASES)])
def test_point(box: Box, case: Case):
    if case.do is c.limit and box.engine.user is not None and not variants.limited():
        pytest.skip("users have no limits here: the controllers are not on the unified hierarchy")
    if not box.clean:  # the case before has failed
        box.recover()
        box.sweep()
    box.clean = False
    case.before(box)
    if case.at_start:
        if box.engine.process is not None:
            box.engine.stop(signal.SIGKILL)
        box.arm(str(case))
        box.engine.launch()
        box.engine.process.wait(patient(20))
    else:
        box.arm(str(case))
        status = case.do(box)
        if case.dies != "ketchd":
            _others_die(box, case, status)
    if not (case.dies == "child" and not os.path.exists(box.trace)):  # out of reach behind pivot_root
        box.died(case.point)
    if case.dies == "ketchd":
        assert box.engine.process.wait(patient(10)) == -9
    box.recover()
    box.check()
    case.then(box)
    box.tidy()
    box.clean = True


def _others_die(box: Box, case: Case, status: int) -> None:
    """The daemon sees it, answers and goes on."""
    if case.then is c.failed:
        assert status == 500
        assert box.inspect("new")["State"]["Error"].startswith("start container: ")
    elif case.dies == "launcher":
        assert status == 204
    if case.dies != "child":
        box.died(case.point)
    box.arm("")
    box.check()
