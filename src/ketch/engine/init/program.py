"""The init program of containers (``--init``): passes signals on to the container's program and reaps orphans.

It is ours, a program without libraries for each machine (``init.c``, compiled by ``scripts/init-program``), since it
runs among the container's files, below every runtime.  On other machines tini's is taken where it is installed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

DESTINATION = "/sbin/docker-init"  # in the container
_OTHERS = ("/usr/bin/tini-static", "/usr/bin/docker-init", "/usr/libexec/docker/docker-init")


def name() -> str:
    """The name of this machine's init program, as in ``docker info``; empty when there is none."""
    if os.path.exists(_ours()):
        return "ketch-init"
    return os.path.basename(next(_installed(), ""))


def make(data_root: str) -> str:
    """Return the path of this machine's init program, which is written to ``data_root`` (FailedPrecondition: none).

    An installed package's files may have lost their right to be executed, and /run may forbid it.
    """
    ours = _ours()
    if not os.path.exists(ours):
        if installed := next(_installed(), ""):
            return installed
        machine = os.uname().machine
        raise FailedPrecondition(
            f"start with --init: there is no init program for {machine}", hint="install the package tini"
        )
    with open(ours, "rb") as f:
        content = f.read()
    path = os.path.join(data_root, "init")
    try:
        with open(path, "rb") as f:
            if f.read() == content and os.fstat(f.fileno()).st_mode & 0o777 == 0o755:
                return path
    except FileNotFoundError:
        pass
    new = f"{path}.new"
    with open(new, "wb") as f:  # beside it: containers run the one that is there
        os.fchmod(f.fileno(), 0o755)
        f.write(content)
    os.replace(new, path)
    return path


def _ours() -> str:
    return os.path.join(os.path.dirname(__file__), os.uname().machine)


def _installed() -> Iterator[str]:
    return (path for path in _OTHERS if os.path.exists(path))
