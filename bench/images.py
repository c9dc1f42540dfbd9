"""Measurements of images from and to a registry and archives: one with many files, one with large layers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from tests.support.registries import made_images as made
from tests.support.registries.registries import registry

from bench import measures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engines import Engine

_PACKAGES = "python3,perl,vim-tiny"
_LAYERS, _LAYER_BYTES = 8, 50 << 20


def debian(path: str) -> str:
    """Write the tar of a Debian with some packages, about 12 000 files; returns its path, or "" without a mirror."""
    if shutil.which("mmdebstrap") is None:
        return ""
    command = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "--quiet", "bookworm", path]
    done = subprocess.run(command, check=False, capture_output=True)
    return path if done.returncode == 0 else ""


def many_files(path: str) -> made.Made:
    """That Debian as one layer."""
    with open(path, "rb") as f:
        return _image([f.read()])


def large_layers() -> made.Made:
    """Eight layers of 50 MB that cannot be compressed."""
    source = random.Random(5)
    return _image([made.tar({f"data{n}": source.randbytes(_LAYER_BYTES)}) for n in range(_LAYERS)])


def _image(tars: list[bytes]) -> made.Made:
    blobs = [made.packed(one, "gzip") for one in tars]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [made.digest(one) for one in tars]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": made.DOCKER_MANIFEST,
        "config": {"mediaType": made.DOCKER_CONFIG, "digest": made.digest(config), "size": len(config)},
        "layers": [{"mediaType": made.DOCKER_LAYER, "digest": made.digest(b), "size": len(b)} for b in blobs],
    }
    parts = {made.digest(one): one for one in (config, *blobs)}
    return made.Made(json.dumps(manifest).encode(), made.DOCKER_MANIFEST, None, parts)


class Workload:
    """One image in a registry, and what is done with it."""

    def __init__(self, name: str, host: str, root: str, image: made.Made) -> None:
        self.name, self.root = name, root
        self.ref = f"{host}/bench/{name}:1"
        self.id = image.image_id
        self.archive = os.path.join(root, f"{name}.tar")
        made.put(host, f"bench/{name}", image, "1")
        self.peak = 0

    def pull(self, engine: Engine) -> float:
        """Of an image that is not there."""
        engine.docker("rmi", "-f", self.id, check=False)
        if engine.kind != "ketch":
            return measures.timed(engine.docker, "pull", "-q", self.ref)
        with memory(engine) as peak:
            took = measures.timed(engine.docker, "pull", "-q", self.ref)
        self.peak = max(self.peak, peak())
        return took

    def save(self, engine: Engine) -> float:
        """Into a file, by the client."""
        path = f"{self.archive}.{engine.kind}"
        took = measures.timed(engine.docker, "save", "-o", path, self.ref)
        os.unlink(path)
        return took

    def load(self, engine: Engine) -> float:
        """The archive that dockerd has written, when there is one."""
        engine.docker("rmi", "-f", self.id, check=False)
        return measures.timed(engine.docker, "load", "-q", "-i", self.archive)

    def push(self, engine: Engine) -> float:
        """Into an empty registry, what was loaded."""
        with registry(root=_fresh(self.root)) as one:
            there = f"{one.host}/bench/{self.name}:1"
            engine.docker("tag", self.ref, there)
            took = measures.timed(engine.docker, "push", "-q", there)
            engine.docker("rmi", there)
        shutil.rmtree(one.root)
        return took

    def remove(self, engine: Engine) -> float:
        """The image and its layers."""
        engine.docker("pull", "-q", self.ref)
        return measures.timed(engine.docker, "rmi", "-f", self.id)


def _fresh(root: str) -> str:
    place = os.path.join(root, "pushed")
    os.makedirs(place)
    return place


@contextlib.contextmanager
def memory(engine: Engine) -> Iterator[Callable[[], int]]:
    """The most that the daemon and its workers have had in memory at one moment of the block, in MiB."""
    assert engine.process is not None
    top, ended, most = engine.process.pid, threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], _resident(top))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: int(most[0])
    finally:
        ended.set()
        thread.join()


def _resident(top: int) -> float:
    """PSS of a process and of those it has started to unpack."""
    total = 0.0
    for pid in [top, *_children(top)]:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:")) / 1024
    return total


def _children(top: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{top}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{top}/task/{task}/children", encoding="ascii") as f:
            found += [int(pid) for pid in f.read().split()]
    return found


def settle() -> None:
    """Bring to the disk what others have written, so that nobody waits for it."""
    os.sync()
