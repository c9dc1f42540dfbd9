"""An engine for the cases of one client, which share it and what some of them set up."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.run import session

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A daemon (of ``--engine``) with ``busybox`` for the tests of one file; at the end nothing may be left of it."""
    one = Engine(request.config.getoption("--engine"), suffix="w")
    before = Census.take(one.name)
    try:
        one.start()
        one.add_busybox()
        yield one
    finally:
        if one.process is not None:
            with contextlib.suppress(AssertionError):
                one.remove_all()
        one.delete()
        left = before.leaks() if one.kind == "ketch" else []
        if left:
            session.clear(one.name)
    assert left == []
