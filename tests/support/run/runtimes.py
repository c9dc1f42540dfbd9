"""The OCI runtimes that Ketch drives, beside the one that is built in: Debian's runc and crun."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from ketch.runtime.cgroups import common
from tests.support.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

BUILT_IN = "ketch"
OTHERS = ("runc", "crun")


@contextlib.contextmanager
def usable(name: str) -> Iterator[str]:
    """A runtime of this name, which the test that runs can use; else that test is skipped.

    crun refuses machines where a controller is on cgroup v2 and the others on v1, whichever it is: there the list of
    those on v2 is out of its sight, and of this whole process's.
    """
    if name != BUILT_IN:
        need(name)
    here = common.layout()
    with contextlib.ExitStack() as undo:
        if name == "crun" and here.version == 1 and here.unified:
            path = f"{here.unified}/cgroup.controllers"
            subprocess.run([need("mount"), "--bind", "/dev/null", path], check=True)
            undo.callback(subprocess.run, [need("umount"), path], check=True)
        yield name


def kept(one: Engine) -> list[str]:
    """The containers that the runtimes of a daemon have, as each knows them."""
    place = os.path.join(one.exec_root, "runtimes")
    return [f"{name}/{id_}" for name in _names(place) for id_ in _names(os.path.join(place, name))]


def _names(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []
