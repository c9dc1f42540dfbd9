"""Images whose layers have no blob, built and committed: through a registry, another engine, a start, a repair."""

from __future__ import annotations

import glob
import json
import os
import shutil

import pytest

from tests.support.boxes.damage import repaired
from tests.support.builds import classic_builds as builds
from tests.support.registries import made_images as made
from tests.support.registries.registries import registry

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]
_DOCKERFILE = (
    "FROM busybox\nRUN echo one >/one && rm /bin/vi && rm -r /tmp && mkdir /tmp && mkfifo /pipe\nCOPY two /two\n"
    "RUN mkdir /d && ln /one /d/hard && ln -s two /d/soft && chown 70000:5 /two\n"
)
_SHOW = "cat /one /d/hard /two; stat -c %u:%g /two; ls /bin/vi /tmp/* 2>/dev/null"
_SHOWN = "one\none\n2\n70000:5\n"


def rows_aside(engine, place: str) -> None:
    """The database as it is, in another directory; what is there comes back from it."""
    os.makedirs(place, exist_ok=True)
    for path in glob.glob(f"{engine.data_root}/ketch.db*"):
        shutil.copy(path, place)


def rows_back(engine, place: str) -> None:
    for path in glob.glob(f"{engine.data_root}/ketch.db*"):
        os.unlink(path)
    for path in glob.glob(f"{place}/*"):
        shutil.copy(path, engine.data_root)


def layers_of(docker, name: str) -> tuple[str, list[str]]:
    facts = json.loads(docker("image", "inspect", name).out)[0]
    return facts["Id"], facts["RootFS"]["Layers"]


def stored(engine) -> set[str]:
    return {"sha256:" + name for name in os.listdir(f"{engine.data_root}/content/blobs/sha256")}


def test_here_and_elsewhere(own_engine, dockerd, tmp_path):
    engine, docker = own_engine, own_engine.docker
    engine.start()
    engine.add_busybox()
    engine.stop()
    rows_aside(engine, f"{engine.root}/before")
    engine.start()
    with registry() as there:
        name = f"{there.host}/built:1"
        status, lines = builds.post(engine.socket, {"Dockerfile": _DOCKERFILE, "two": "2\n"}, f"t={name}")
        assert status == 200, lines
        image, layers = layers_of(docker, name)
        assert stored(engine).isdisjoint(layers[1:])
        assert docker("run", "--rm", name, "sh", "-c", _SHOW, check=False).out == _SHOWN

        docker("save", "-o", str(tmp_path / "saved.tar"), name)
        dockerd.docker("load", "-i", str(tmp_path / "saved.tar"))
        assert layers_of(dockerd.docker, name) == (image, layers)
        assert dockerd.docker("run", "--rm", name, "sh", "-c", _SHOW, check=False).out == _SHOWN
        dockerd.docker("rmi", name)

        engine.stop()
        rows_back(engine, f"{engine.root}/before")
        engine.start()
        assert docker("images", "-q", name).out == ""
        assert glob.glob(f"{engine.data_root}/lost/*/layers/built-*")
        engine.stop()
        repaired(engine)
        engine.start()
        assert layers_of(docker, image) == (image, layers)
        docker("tag", image, name)
        assert docker("run", "--rm", name, "sh", "-c", _SHOW, check=False).out == _SHOWN

        docker("push", name)
        manifest = json.loads(made.got(there.host, "built", "1"))
        assert manifest["config"]["digest"] == image
        assert all(layer["mediaType"].endswith("gzip") for layer in manifest["layers"])
        assert stored(engine) >= {layer["digest"] for layer in manifest["layers"]}
        engine.ketch("builder", "prune", "-af")
        docker("rmi", "-f", image)
        assert stored(engine).isdisjoint(layer["digest"] for layer in manifest["layers"][1:])
        docker("pull", name)
        assert layers_of(docker, name) == (image, layers)
        assert docker("run", "--rm", name, "sh", "-c", _SHOW, check=False).out == _SHOWN
