"""Daemons that find their disk full, or their files broken."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from tests.support.rawapi import Api
from tests.support.waiting import patient


def refused(engine) -> str:
    """A start that fails: what it says."""
    done = subprocess.run(engine.command(), capture_output=True, text=True, timeout=patient(30), check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def repaired(engine) -> str:
    done = subprocess.run(
        [*engine.command(), "--repair"], capture_output=True, text=True, timeout=patient(30), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def fill(directory: str) -> str:
    path = os.path.join(directory, "fill")
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as f:
        while True:
            f.write(bytes(65536))
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as f:
        while True:
            f.write(bytes(512))
    return path


def database(engine) -> str:
    return os.path.join(engine.data_root, "ketch.db")


def overwrite(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def mount(place: str, options: str) -> None:
    """Mount a file system in memory."""
    os.makedirs(place, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)


@contextlib.contextmanager
def mounted(place: str, options: str):
    """A file system in memory at a directory."""
    mount(place, options)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def small(engine, options: str, *places: str):
    """The engine with file systems of its own, a few megabytes each, and busybox."""
    for place in places:
        mount(place, options)
    try:
        engine.start()
        engine.add_busybox()
        yield Api(engine.socket)
        engine.remove_all()
        engine.stop()
    finally:
        if engine.process is not None:
            engine.remove_all()
            engine.stop(signal.SIGKILL)
        for place in places:
            subprocess.run(["umount", "-l", place], check=True)
        engine.data_root += "2"  # what the fixture ends with works without it
        engine.exec_root += "2"
