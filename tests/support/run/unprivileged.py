"""A user without rights, and with subordinate ids, for daemons of one process of the run.

Nothing of the machine changes: the files that know the user are mounted over the machine's, in the process's mount
namespace, as are the interpreter and the sources, which may lie where only root gets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

from tests.support.source.project import ROOT

NAME = "ketch-tests"
UID = 54321
FIRST_ID, IDS = 3_000_000_000, 65536
_PLACE = "/tmp/kt-user"
_FILES = {
    "/etc/passwd": f"{NAME}:x:{UID}:{UID}::{_PLACE}/home:/bin/sh\n",
    "/etc/group": f"{NAME}:x:{UID}:\n",
    "/etc/subuid": f"{NAME}:{FIRST_ID}:{IDS}\n",
    "/etc/subgid": f"{NAME}:{FIRST_ID}:{IDS}\n",
}
_PLACES = ("python", "source", "packages")
MOUNTS = frozenset((*_FILES, *(f"{_PLACE}/{name}" for name in _PLACES)))  # of the process's, until it ends
_RUN = "from ketch.entry import {entry}; {entry}()"


@dataclass
class User:
    """How the user's programs are started."""

    home: str
    runtime: str

    def command(self, entry: str) -> list[str]:
        """The beginning of a command line: ``ketchd``, ``ketch``."""
        identity = [
            shutil.which("setpriv") or "setpriv",
            f"--reuid={UID}",
            f"--regid={UID}",
            "--clear-groups",
            "--inh-caps=-all",
        ]
        return [*identity, f"{_PLACE}/python/bin/{_interpreter()}", "-c", _RUN.format(entry=entry)]

    def environment(self) -> dict[str, str]:
        """What a login sets, and where the interpreter finds the sources."""
        return {
            "HOME": self.home,
            "USER": NAME,
            "XDG_RUNTIME_DIR": self.runtime,
            "PYTHONPATH": f"{_PLACE}/source:{_PLACE}/packages",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": f"{_PLACE}/python/lib",  # where the interpreter's own library may be
        }


def _interpreter() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def user() -> User:
    """The user, made at the first call in this process."""
    made = User(f"{_PLACE}/home", f"{_PLACE}/runtime")
    if os.path.exists(f"{_PLACE}/python/bin"):
        return made
    os.makedirs(_PLACE, 0o755, exist_ok=True)
    for path, line in _FILES.items():
        copy = f"{_PLACE}/{os.path.basename(path)}"
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                before = f.read()
        with open(copy, "w", encoding="utf-8") as f:
            f.write(before + line)
        os.chmod(copy, 0o644)
        if not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT, 0o644))
        subprocess.run(["mount", "--bind", copy, path], check=True)
    sources = (sys.base_prefix, f"{ROOT}/src", sysconfig.get_paths()["purelib"])
    for name, source in zip(_PLACES, sources, strict=True):
        os.mkdir(f"{_PLACE}/{name}")
        subprocess.run(["mount", "--bind", source, f"{_PLACE}/{name}"], check=True)
    for path in (made.home, made.runtime):
        os.mkdir(path, 0o700)
        os.chown(path, UID, UID)
    return made
