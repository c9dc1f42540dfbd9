"""A place in the peers' root where their programs run, with namespaces of its own, and ketch-runtime among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import ketch
from tests.support import peers
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Sequence


class Done(NamedTuple):
    """What became of a program."""

    code: int
    out: str
    err: str


class PeerPlace:
    """``close`` ends it; ``directory`` is below /tmp, which is there, too.

    ``cgroups`` are those that programs make at the top of each hierarchy, and leave.
    """

    def __init__(self, directory: Path, cgroups: Sequence[str] = ()) -> None:
        self.directory = directory
        hierarchies = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]
        self._left = [path for top in hierarchies for name in cgroups if not (path := top / name).exists()]
        self.ketch_runtime = write_runtime(directory)
        self._holder = subprocess.Popen(peers.command("sleep", "10000", network=True), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + patient(30)
        while os.path.basename(os.readlink(f"/proc/{self._holder.pid}/exe")) != "sleep":
            assert self._holder.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        self._namespaces = peers.Namespaces(self._holder.pid)

    def command(self, *words: str) -> list[str]:
        """A command line for a program there."""
        return self._namespaces.command(*words)

    def __call__(self, *words: str, stdin: str = "", timeout: float = 30, **environment: str) -> Done:
        """Run a program to its end."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patient(timeout),
            env={**os.environ, **environment},
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        """End it, with what was left running in it."""
        self._namespaces.close()
        self._holder.kill()
        self._holder.wait()
        for path in self._left:
            for directory, _, files in os.walk(path, topdown=False):
                for name in files:
                    with suppress(PermissionError):  # of a cgroup; where nothing is mounted they are files
                        os.unlink(os.path.join(directory, name))
                os.rmdir(directory)


def write_runtime(directory: str | Path) -> str:
    """A script in a directory that is ketch-runtime for the root's own Python; returns its path."""
    packages, runtime = os.path.join(directory, "packages"), os.path.join(directory, "ketch-runtime")
    shutil.copytree(os.path.dirname(ketch.__file__), os.path.join(packages, "ketch"))
    program = f"import sys; sys.path.insert(0, '{packages}'); from ketch.entry import runtime; runtime()"
    with open(runtime, "w", encoding="utf-8") as f:
        f.write(f'#!/bin/sh\nexec python3 -IS -c "{program}" "$@"\n')
    os.chmod(runtime, 0o755)
    return runtime
