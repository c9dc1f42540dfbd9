"""The choice of the Docker that is imported from."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.cli.importing.disk.data_root import DataRoot
from ketch.cli.importing.running import RunningDocker
from ketch.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.importing.source import Docker

_SOCKET, _DATA_ROOT = "/var/run/docker.sock", "/var/lib/docker"


@contextmanager
def opened(named: str) -> Iterator[Docker]:
    """The Docker at an address or in a directory; without one that of this machine, whether it runs or not.

    Raises InvalidArgument for what is neither, Unavailable when there is no Docker.
    """
    if named and "://" not in named and not os.path.isabs(named):
        raise InvalidArgument(
            f"--from {named}: neither an address nor a directory", hint=f"e.g. unix://{_SOCKET}, or {_DATA_ROOT}"
        )
    running = None if named.startswith("/") else _running(named)
    if running is not None:
        yield running
        return
    with DataRoot(named or _DATA_ROOT) as source:
        yield source


def _running(named: str) -> RunningDocker | None:
    """The Docker that answers; None: none does, and this machine's has files."""
    try:
        return RunningDocker(named or f"unix://{_SOCKET}")
    except Unavailable as e:
        if named:
            raise
        if not os.path.isdir(_DATA_ROOT):
            e.hint = f"is it on this machine? --from names another address, or the data root, if not {_DATA_ROOT}"
            raise
        return None
