"""Daemons that find their disk full, or their files broken."""

from __future__ import annotations

import contextlib
import os
import subprocess


def refused(engine) -> str:
    """A start that fails: what it says."""
    done = subprocess.run(engine.command(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def repaired(engine) -> str:
    done = subprocess.run([*engine.command(), "--repair"], capture_output=True, text=True, timeout=30, check=False)
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
