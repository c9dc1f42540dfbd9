"""The link at Docker's path to this daemon's socket (``--docker-socket``), for programs that know that path alone."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.daemon.roots import real_path
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATH = "/var/run/docker.sock"


@contextmanager
def link(path: str, hosts: Sequence[str], bound: Mapping[str, socket.socket]) -> Iterator[None]:
    """Have a link at ``path`` (empty: none) to the first unix socket of this daemon's, until the end.

    Nothing that is there is replaced, but for the same link, which a killed daemon left (AlreadyExists,
    FailedPrecondition).  At the end it is removed, unless somebody has put another thing in its place.  Somebody's
    link that leads to the socket by another name (``/run`` for ``/var/run``, a relative one) will do, and stays.
    """
    sockets = _sockets(hosts, bound) if path else []
    if not path or real_path(path) in map(real_path, sockets):
        yield
        return
    target = sockets[0]
    try:
        os.symlink(target, path)
    except FileExistsError:
        if not _leads_to(path, target):
            raise AlreadyExists(
                f"link {path} to {target}: there is {_described(path)} already",
                hint="stop dockerd and its docker.socket, and remove what is left there; or leave --docker-socket out",
            ) from None
    except OSError as e:
        raise FailedPrecondition(
            f"link {path} to {target}: {e.strerror}", hint="name another path: --docker-socket PATH"
        ) from e
    try:
        yield
    finally:
        if _destination(path) == target:
            os.unlink(path)


def _sockets(hosts: Sequence[str], bound: Mapping[str, socket.socket]) -> list[str]:
    """The paths of the unix sockets, named or passed by the service manager (InvalidArgument: there is none)."""
    paths = []
    for host in hosts:
        if host.startswith("unix://"):
            paths.append(os.path.abspath(host.removeprefix("unix://")))
        elif host in bound and bound[host].family == socket.AF_UNIX:
            paths.append(os.path.abspath(str(bound[host].getsockname())))
    if not paths:
        raise InvalidArgument("--docker-socket: ketchd has no unix socket to link to", hint="add -H unix://PATH")
    return paths


def _leads_to(path: str, target: str) -> bool:
    destination = _destination(path)
    if destination is None:
        return False
    return real_path(os.path.join(os.path.dirname(path), destination)) == real_path(target)


def _destination(path: str) -> str | None:
    """The destination of a link; None: it is no link, or gone."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _described(path: str) -> str:
    destination = _destination(path)
    return f"a link to {destination}" if destination is not None else "a socket or a file"
