"""An engine in this process, whose commands the tests of one module share."""

from __future__ import annotations

import pytest

from tests.support.boxes.build_box import BuildBox
from tests.support.engines import Engine
from tests.support.leaks import Census


@pytest.fixture(scope="module")
def build_box():
    """Commands of builds; at the end nothing may be left of any."""
    one = Engine("ketch", suffix="x")
    before = Census.take(one.name)
    argv = one.command()
    box = BuildBox(argv[argv.index("--data-root") :])
    try:
        box.open()
        yield box
        left = box.remains()
    finally:
        box.close()
        one.delete()
    assert left == []
    assert before.leaks() == []
