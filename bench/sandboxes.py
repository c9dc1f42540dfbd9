"""Measurements of programs in sandboxes: `ketch.Engine`, a program's own, beside docker-py on dockerd."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
from typing import TYPE_CHECKING, NamedTuple

import ketch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engines import Engine

    Removal = Callable[[], object]

IMAGE = "sandbox"
INTERPRETER = os.path.realpath(sys.executable)
TRUE, NOTHING = ["true"], [INTERPRETER, "-I", "-c", "1"]
_LEFT_OUT = frozenset(("test", "site-packages", "idlelib", "tkinter", "ensurepip"))


class Ways(NamedTuple):
    """What is measured: starts of a container, programs in containers of their own, programs in a running one."""

    start: Callable[[], Removal]
    true: Callable[[], object]
    python: Callable[[], object]
    execute: Callable[[], object]


def add_image(engine: Engine) -> None:
    """Have the image with this program's interpreter."""
    engine.docker("import", "-", IMAGE, stdin=_interpreter(), timeout=120)


@contextlib.contextmanager
def own(engine: Engine, state: str) -> Iterator[Ways]:
    """An engine of this program's own with the images of ``engine``."""
    archive = os.path.join(state, "images.tar")
    engine.docker("save", "-o", archive, "busybox", IMAGE, timeout=120)
    with ketch.Engine(os.path.join(state, "engine")) as python:
        python.images.load(archive)
        with python.container("busybox") as box:
            yield Ways(
                start=lambda: python.container("busybox").start().remove,
                true=lambda: python.run("busybox", TRUE),
                python=lambda: python.run(IMAGE, NOTHING),
                execute=lambda: box.exec(TRUE),
            )


@contextlib.contextmanager
def theirs(engine: Engine) -> Iterator[Ways]:
    """The same by docker-py."""
    with contextlib.closing(engine.py()) as client:
        run = functools.partial(client.containers.run, network_mode="none")
        box = run("busybox", ["sleep", "10000"], detach=True)
        try:
            yield Ways(
                start=lambda: functools.partial(run("busybox", detach=True, stdin_open=True).remove, force=True),
                true=lambda: run("busybox", TRUE, remove=True),
                python=lambda: run(IMAGE, NOTHING, remove=True),
                execute=lambda: box.exec_run(TRUE),
            )
        finally:
            box.remove(force=True)


def in_turn(work: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of so many times, one after the other; the first three warm up.

    A function that the work returns is called behind the measurement.
    """
    took = []
    for number in range(count + 3):
        begin = time.perf_counter()
        left = work()
        if number >= 3:
            took.append((time.perf_counter() - begin) * 1000)
        if callable(left):
            left()
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
