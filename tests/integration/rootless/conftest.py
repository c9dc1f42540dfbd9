"""An engine of a user who has no rights."""

from __future__ import annotations

import pytest

from tests.support.programs import need
from tests.support.run import daemons, unprivileged


@pytest.fixture(scope="module")
def users_engine():
    """A user's daemon with ``busybox``, for the tests of one file."""
    need("newuidmap")
    unprivileged.user()  # before the census of what is left
    with daemons.one_of_its_own("u") as one:
        one.rootless()
        one.start()
        one.add_busybox()
        yield one


@pytest.fixture
def own_users_engine():
    """The same for one test alone: to be killed, and started again."""
    need("newuidmap")
    unprivileged.user()
    with daemons.one_of_its_own("v") as one:
        one.rootless()
        one.start()
        one.add_busybox()
        yield one


@pytest.fixture
def unstarted_users_engine():
    """The same, not started yet, and without an image: for a machine on which something is missing."""
    need("newuidmap")
    unprivileged.user()
    with daemons.one_of_its_own("w") as one:
        one.rootless()
        yield one
