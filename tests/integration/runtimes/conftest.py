"""A daemon for the tests of OCI runtimes, and each runtime in turn."""

from __future__ import annotations

import pytest

from tests.support.run import runtimes


@pytest.fixture(scope="module", params=[runtimes.BUILT_IN, *runtimes.OTHERS])
def runtime(request: pytest.FixtureRequest):
    """The name of a runtime."""
    with runtimes.usable(request.param) as name:
        yield name


@pytest.fixture(scope="module", params=runtimes.OTHERS)
def other(request: pytest.FixtureRequest):
    """The same, without the built-in one."""
    with runtimes.usable(request.param) as name:
        yield name


@pytest.fixture(autouse=True)
def _nothing_kept(request: pytest.FixtureRequest):
    """No runtime has a container that was removed."""
    yield
    if "engine" in request.fixturenames:
        one = request.getfixturevalue("engine")
        one.remove_all()
        assert runtimes.kept(one) == []
