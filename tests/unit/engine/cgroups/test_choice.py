"""The cgroup of a container's start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ketch.engine.cgroups import ContainerCgroups
from ketch.errors import InvalidArgument


def test_a_parent_of_another_driver_does_not_keep_a_container_from_starting():
    """The driver may be another one since the container was created; for a new one it is refused."""
    cgroups = ContainerCgroups(SimpleNamespace(), "system.slice")
    container = SimpleNamespace(id="c1", name="c", host=SimpleNamespace(cgroup_parent="/mine"))
    assert cgroups.choose(container) == "system.slice:ketch:c1"
    with pytest.raises(InvalidArgument, match="valid slice"):
        cgroups.check_parent("/mine")
