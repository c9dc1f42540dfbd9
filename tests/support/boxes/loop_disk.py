"""A file system in a file, on a block device of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ext4(image: str, place: str, size: int, *make_options: str, mount_options: str = "loop") -> Iterator[str]:
    """Mount an ext4 of ``size`` bytes at a directory, made for it; the test is skipped where that cannot be done."""
    with open(image, "wb") as f:
        f.truncate(size)
    os.mkdir(place)
    subprocess.run([need("mkfs.ext4"), "-q", *make_options, image], check=True)
    mount = ["mount", "-o", mount_options, image, place]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no such ext4 can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def device_of(directory: str) -> str | None:
    """The block device that a directory is on; None for a file system in memory, an overlay and the like."""
    number = os.stat(directory).st_dev
    try:
        return "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
    except FileNotFoundError:
        return None
