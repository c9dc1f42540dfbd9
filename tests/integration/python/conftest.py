"""The shared engine, as a program in Python uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import ketch

if TYPE_CHECKING:
    from tests.support.engines import Engine


@pytest.fixture
def limits(engine: Engine) -> None:
    """Containers can be limited, and paused: what the test says of that is true."""
    with ketch.connect(engine.host) as one:
        if not one.info()["MemoryLimit"]:
            pytest.skip("the engine's containers have no cgroups")


@pytest.fixture
def python(engine: Engine):
    with ketch.connect(engine.host) as one:
        yield one
