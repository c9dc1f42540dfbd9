"""The engines that Ketch is compared with, and their clients: programs of the root that ``scripts/peers`` makes.

Where there is no such root, what needs one of these programs is skipped, and the end of the run says so in one line.
"""

from __future__ import annotations

import os
import subprocess

import pytest

SCRIPT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/peers"))
_FOUND = subprocess.run([SCRIPT, "dir"], capture_output=True, text=True, check=False)
_PLACE = _FOUND.stdout.strip()
MISSING = "" if _FOUND.returncode == 0 else _FOUND.stderr.strip()
DOCKERD_API = "1.51"


def need() -> None:
    """Skip the test that runs unless there is a root."""
    if MISSING:
        pytest.skip(MISSING)


def docker() -> str:
    """The docker client, a program of this machine."""
    need()
    return os.path.join(_PLACE, "bin/docker")


def plugins() -> str:
    """The directory of the client's plugins, to be named in its configuration."""
    return os.path.join(_PLACE, "cli-plugins")


def path() -> str:
    """A PATH on which ``docker`` is that client."""
    return f"{_PLACE}/bin:{os.environ['PATH']}" if _PLACE else os.environ["PATH"]


class Namespaces:
    """Those of a program of the root, kept after its end: the next one finds what lives there."""

    def __init__(self, pid: int) -> None:
        self._fds = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net")}

    def command(self, *words: str) -> list[str]:
        """A command line for a program there."""
        mount, network = (f"/proc/{os.getpid()}/fd/{self._fds[kind]}" for kind in ("mnt", "net"))
        return ["nsenter", f"--mount={mount}", f"--net={network}", *words]

    def close(self) -> None:
        """Let them go."""
        for fd in self._fds.values():
            os.close(fd)


def command(*words: str, network: bool = False) -> list[str]:
    """A command line for a program of the root, in a network namespace of its own if asked."""
    need()
    return [SCRIPT, "run", *(["--network"] if network else []), *words]
