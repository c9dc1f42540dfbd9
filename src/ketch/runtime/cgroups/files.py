"""Reading and writing of the small text files of a cgroup directory.

A cgroup that is removed meanwhile answers ENODEV; here it is as gone as one that went before
(FileNotFoundError).  The block controllers have a meaning of their own for ENODEV: there is no such device.
"""

from __future__ import annotations

import os
from errno import ENODEV, ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK = ("blkio.", "io.")


def read(directory: str, name: str) -> str:
    """The whole file without its last newline."""
    fd = _open(directory, name, os.O_RDONLY)
    try:
        data = os.read(fd, 65536)
        while len(data) >= 2048:  # a seq file may give a long text in pieces of about a page
            more = os.read(fd, 65536)
            if not more:
                break
            data += more
    except OSError as e:
        number = ENOENT if e.errno == ENODEV else e.errno or 0
        raise OSError(number, os.strerror(number), f"{directory}/{name}") from e
    finally:
        os.close(fd)
    return data.decode(errors="surrogateescape").rstrip("\n")


def read_or(directory: str, name: str, default: str = "") -> str:
    """`read`, or ``default`` where this kernel has no such file (or the cgroup is gone)."""
    try:
        return read(directory, name)
    except FileNotFoundError:
        return default


def read_again(fd: int) -> str:
    """The text of a small file that is open; whoever waits for its changes has heard of all until then."""
    try:
        return os.pread(fd, 4096, 0).decode()
    except OSError as e:
        number = ENOENT if e.errno == ENODEV else e.errno or 0
        raise OSError(number, os.strerror(number)) from e


def write(directory: str, name: str, value: str | int) -> None:
    """Write ``value`` in one call, which is how cgroup files want it."""
    fd = _open(directory, name, os.O_WRONLY)
    try:
        os.write(fd, str(value).encode())
    except OSError as e:
        gone = e.errno == ENODEV and not name.startswith(_BLOCK)
        raise OSError(ENOENT if gone else e.errno, f"write `{value}`", f"{directory}/{name}") from e
    finally:
        os.close(fd)


def _open(directory: str, name: str, flags: int) -> int:
    path = f"{directory}/{name}"
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as e:
        if e.errno != ENODEV:
            raise
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path) from e


def exists(directory: str, name: str) -> bool:
    """Whether this kernel has the file."""
    return os.path.exists(f"{directory}/{name}")


def number(text: str, default: int = 0) -> int:
    """A decimal number; ``max`` is 2**64-1, as v1 says unlimited; anything else is ``default``."""
    if text.isdigit():
        return int(text)
    return (1 << 64) - 1 if text == "max" else default


def pairs(text: str) -> dict[str, int]:
    """``key value`` lines as a dict; lines that are something else are skipped."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def throttle_lines(resources: Mapping[str, object], key: str) -> list[tuple[str, int]]:
    """("major:minor", rate) for each entry of one of blockIO's throttle lists."""
    entries = resources.get(key)
    if not isinstance(entries, list):
        return []
    return [(f"{entry['major']}:{entry['minor']}", int(entry["rate"])) for entry in entries]
