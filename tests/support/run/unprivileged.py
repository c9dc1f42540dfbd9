"""A user without rights, and with subordinate ids, for daemons of one process of the run.

Nothing of the machine changes: the files that know the user are mounted over the machine's, in the process's mount
namespace, as are the interpreter and the sources, which may lie where only root gets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ketch.runtime.cgroups import common, tree
from tests.support.source.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ketch-tests"
UID = 54321
FIRST_ID, IDS = 2_000_000_000, 65536  # bindfs knows none above 2^31
PLACE = "/tmp/kt-user"
LINES = {
    "/etc/passwd": f"{NAME}:x:{UID}:{UID}::{PLACE}/home:/bin/sh\n",
    "/etc/group": f"{NAME}:x:{UID}:\n",
    "/etc/subuid": f"{NAME}:{FIRST_ID}:{IDS}\n",
    "/etc/subgid": f"{NAME}:{FIRST_ID}:{IDS}\n",
}
_PLACES = ("python", "source", "packages")
MOUNTS = frozenset((*LINES, *(f"{PLACE}/{name}" for name in _PLACES)))  # of the process's, until it ends
_RUN = "from ketch.entry import {entry}; {entry}()"
# As scripts/isolate leaves it: a client that looks for its packages again takes a third longer.
_CLIENT = """\
#!{python} -IS
import sys
sys.path += {places!r}
from ketch.entry import ketch
sys.exit(ketch())
"""


@dataclass
class User:
    """How the user's programs are started."""

    home: str
    runtime: str

    def command(self, entry: str) -> list[str]:
        """The beginning of a command line: ``ketchd``, ``ketch``."""
        if entry == "ketch":
            return [*self.identity(), f"{PLACE}/bin/ketch"]
        return self.python(_RUN.format(entry=entry))

    def python(self, code: str) -> list[str]:
        """The beginning of a command line that runs a program in Python."""
        return [*self.identity(), _interpreter(), "-c", code]

    def identity(self) -> list[str]:
        """The beginning of a command line that runs any program as the user."""
        setpriv = shutil.which("setpriv") or "setpriv"
        return [setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all"]

    def environment(self) -> dict[str, str]:
        """What a login sets, and where the interpreter finds the sources."""
        return {
            "HOME": self.home,
            "USER": NAME,
            "XDG_RUNTIME_DIR": self.runtime,
            "PYTHONPATH": f"{PLACE}/source:{PLACE}/packages",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": f"{PLACE}/python/lib",  # where the interpreter's own library may be
        }


def _interpreter() -> str:
    return f"{PLACE}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def user() -> User:
    """The user, made at the first call in this process."""
    made = User(f"{PLACE}/home", f"{PLACE}/runtime")
    if os.path.exists(f"{PLACE}/python/bin"):
        return made
    os.makedirs(PLACE, 0o755, exist_ok=True)
    for path, line in LINES.items():
        copy = f"{PLACE}/{os.path.basename(path)}"
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
        os.makedirs(f"{PLACE}/{name}", exist_ok=True)  # another process of the run may have the same /tmp
        subprocess.run(["mount", "--bind", source, f"{PLACE}/{name}"], check=True)
    _install()
    for path in (made.home, made.runtime):
        os.makedirs(path, 0o700, exist_ok=True)
        os.chown(path, UID, UID)
    return made


def _install() -> None:
    """Make the script by which the user starts ``ketch``."""
    os.makedirs(f"{PLACE}/bin", exist_ok=True)
    new = f"{PLACE}/bin/.ketch-{os.getpid()}"
    with open(new, "w", encoding="utf-8") as f:
        f.write(_CLIENT.format(python=_interpreter(), places=[f"{PLACE}/packages", f"{PLACE}/source"]))
    os.chmod(new, 0o755)
    os.rename(new, f"{PLACE}/bin/ketch")


def give(path: Path) -> None:
    """Have a directory belong to the user, who gets to it."""
    os.chown(path, UID, UID)
    for above in path.parents:
        if above.stat().st_uid == 0 and not above.stat().st_mode & 1:
            above.chmod(above.stat().st_mode | 0o011)


def give_tree(root: Path) -> None:
    """Have a directory with all that is in it belong to the user; modes stay as they are."""
    for directory, names, files in os.walk(root):
        for path in (directory, *(f"{directory}/{name}" for name in (*names, *files))):
            mode = os.lstat(path).st_mode
            os.lchown(path, UID, UID)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))  # another owner takes the set-id bits away


@contextlib.contextmanager
def own_cgroup(name: str) -> Iterator[list[str]]:
    """A cgroup that is the user's: how a command line begins whose program starts in it.

    Empty where there is no unified hierarchy.
    """
    if not common.layout().unified:
        yield []
        return
    cgroup = f"{common.layout().unified}/{name}"
    tree.make(cgroup)
    for file in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
        os.chown(cgroup + file, UID, UID)
    try:
        # A service's next process comes to the same place, which may be divided already (DelegateSubgroup=).
        script = f'cd {cgroup}; test ! -d ketchd || cd ketchd; echo $$ > cgroup.procs && cd / && exec "$@"'
        yield ["sh", "-c", script, "sh"]
    finally:
        tree.remove(cgroup)
