"""An engine for the cases of one client, which share it and what some of them set up."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import docker
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
        with one.running():
            yield one
    finally:
        left = before.leaks() if one.kind == "ketch" else []
        if left:
            session.clear(one.name)
    assert left == []


@pytest.fixture
def client(docker_py: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """docker-py's models; what a case leaves of images, networks and volumes is removed."""
    before = {image.id for image in docker_py.images.list()}
    yield docker_py
    for container in docker_py.containers.list(all=True):
        container.remove(force=True, v=True)
    for image in docker_py.images.list():
        for tag in image.tags:
            if tag != "busybox:latest":
                docker_py.images.remove(tag)
        if image.id not in before:
            with contextlib.suppress(docker.errors.ImageNotFound):
                docker_py.images.remove(image.id)
    docker_py.volumes.prune(filters={"all": True})
    docker_py.networks.prune()


@pytest.fixture
def api(client: docker.DockerClient) -> docker.APIClient:
    """docker-py's low level."""
    return client.api


@pytest.fixture
def box(client: docker.DockerClient) -> docker.models.containers.Container:
    """A container that runs."""
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, name="box", stop_signal="SIGKILL")
