"""``--security-opt nesting``: what it opens, and for whom."""

from __future__ import annotations

import pytest

from ketch.engine.model.namespaces.user import UserNamespace
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.spec import security_options
from ketch.errors import UnclassifiedArgument
from ketch.runtime import defaults


def container(*options: str, namespace: UserNamespace | None = None, **host: str) -> Container:
    return Container(
        id="a" * 64,
        name="one",
        created=0,
        image_id="",
        image_ref="",
        config=ContainerConfig(),
        host=HostConfig(security_opt=list(options), **host),
        user_namespace=namespace,
    )


@pytest.mark.parametrize("option", ["nesting", "nesting=true", "nesting:1"])
def test_not_for_roots_containers(option, monkeypatch):
    monkeypatch.setattr(defaults, "LIMITED", False)
    with pytest.raises(UnclassifiedArgument, match="root would be the machine's"):
        security_options.read(container(option, userns_mode="host"), [])


@pytest.mark.parametrize(("mode", "writable"), [("private", True), ("", True), ("host", False)])
def test_others_cgroups_stay_closed(mode, writable):
    """In the host's cgroup namespace those of a user's other containers are seen, and are that user's as well."""
    one = container("nesting", namespace=UserNamespace.of_range(100_000, 65536), cgroupns_mode=mode)
    found = security_options.read(one, [])
    assert (found.nests, found.unmasked, found.writable_cgroups) == (True, True, writable)
