"""The build cache of a daemon: over its death, without layers, for several builds at once."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.builds import classic_builds as builds

pytestmark = pytest.mark.usefixtures("no_images_left")

STEPS = {
    "Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nCOPY a /a\nRUN cat /id /a\n",
    "a": "one",
}


def built(engine, files, query=""):
    """The image's id, and how many steps were taken from the cache."""
    status, lines = builds.post(engine.socket, files, query)
    assert status == 200, lines
    return builds.image_id(lines), builds.text(lines).count("Using cache")


def layers_of(engine):
    return set(os.listdir(os.path.join(engine.data_root, "layers")))


def test_a_killed_daemon_knows_what_it_built(engine):
    image, _ = built(engine, STEPS)
    engine.stop(signal.SIGKILL)
    engine.start()
    assert built(engine, STEPS) == (image, 3)
    other, cached = built(engine, {**STEPS, "a": "two"})
    assert (other != image, cached) == (True, 1)
    assert built(engine, STEPS) == (image, 3)


def test_a_layer_that_is_gone_is_made_again(engine, docker_py):
    before = layers_of(engine)
    files = {"Dockerfile": "FROM busybox\nRUN echo gone > /gone\nRUN cat /gone\n"}
    built(engine, files)
    gone = [layer for layer in layers_of(engine) - before if layer.startswith("built-")]
    assert len(gone) == 2
    for layer in gone:
        shutil.rmtree(os.path.join(engine.data_root, "layers", layer))
    image, cached = built(engine, files)
    assert cached == 0
    assert built(engine, files) == (image, 2)
    assert docker_py.containers.run(image, ["cat", "/gone"], remove=True) == b"gone\n"


def test_equal_steps_of_builds_at_once_run_once(engine):
    files = {
        "Dockerfile": "FROM busybox\nCOPY a /a\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n",
        "a": "of several",
    }
    with ThreadPoolExecutor(3) as pool:
        images = [image for image, _ in pool.map(lambda _: built(engine, files), range(3))]
    assert len(set(images)) == 1
