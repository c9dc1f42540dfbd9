"""Measurements of programs in sandboxes: `ketch.Engine`, a program's own, beside docker-py on dockerd."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
from typing import TYPE_CHECKING

import ketch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engines import Engine

    Run = Callable[[str, list[str]], object]

IMAGE = "sandbox"
INTERPRETER = os.path.realpath(sys.executable)
PROGRAMS = {"busybox": ["true"], IMAGE: [INTERPRETER, "-I", "-c", "1"]}
_LEFT_OUT = frozenset(("test", "site-packages", "idlelib", "tkinter", "ensurepip"))


def add_image(engine: Engine) -> None:
    """Have the image with this program's interpreter."""
    engine.docker("import", "-", IMAGE, stdin=_interpreter(), timeout=120)


@contextlib.contextmanager
def own(engine: Engine, state: str) -> Iterator[tuple[Run, Run]]:
    """An engine of this program's own with the images of ``engine``: runs of programs, and execs in a container."""
    archive = os.path.join(state, "images.tar")
    engine.docker("save", "-o", archive, *PROGRAMS, timeout=120)
    with ketch.Engine(os.path.join(state, "engine")) as python:
        python.images.load(archive)
        with python.container("busybox") as box:
            yield python.run, lambda _image, argv: box.exec(argv)


@contextlib.contextmanager
def theirs(engine: Engine) -> Iterator[tuple[Run, Run]]:
    """The same by docker-py."""
    with contextlib.closing(engine.py()) as client:
        box = client.containers.run("busybox", ["sleep", "10000"], detach=True, network_mode="none")
        try:
            yield (
                lambda image, argv: client.containers.run(image, argv, remove=True, network_mode="none"),
                lambda _image, argv: box.exec_run(argv),
            )
        finally:
            box.remove(force=True)


def in_turn(run: Run, image: str, count: int) -> list[float]:
    """Milliseconds of so many programs, one after the other; the first three warm up."""
    took = []
    for number in range(count + 3):
        begin = time.perf_counter()
        run(image, PROGRAMS[image])
        if number >= 3:
            took.append((time.perf_counter() - begin) * 1000)
    return took


def _interpreter() -> bytes:
    """This program's interpreter with its library and what it is linked to, each where it is here, as a tar."""
    linked = subprocess.run(["ldd", INTERPRETER], capture_output=True, text=True, check=True).stdout.split()
    stdlib = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for path in {INTERPRETER, *(word for word in linked if word.startswith("/"))}:
            tar.add(path)
        tar.add(stdlib, filter=lambda entry: None if os.path.basename(entry.name) in _LEFT_OUT else entry)
    return buffer.getvalue()
