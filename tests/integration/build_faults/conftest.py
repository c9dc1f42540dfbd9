"""Builds that wait for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.building.requests import Gate
from tests.support.rawapi import Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine


@pytest.fixture
def gate(engine: Engine) -> Iterator[Gate]:
    """A gate for commands of builds, of the engine that tests share, whose cache is empty."""
    Api(engine.socket).must("POST", "/build/prune", all=1)
    yield Gate(engine)
    Api(engine.socket).must("POST", "/build/prune", all=1)
