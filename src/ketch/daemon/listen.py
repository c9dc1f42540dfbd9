"""The daemon's listening sockets, its pid file, and the lock that keeps a second daemon off its data."""

from __future__ import annotations

import fcntl
import grp
import logging
import os
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.daemon.config import Config, tcp_address
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)


@contextmanager
def data_lock(data_root: str) -> Iterator[None]:
    """Hold ``data_root`` for this process; raises AlreadyExists when another daemon has it."""
    path = os.path.join(data_root, "ketch.lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            owner = os.read(fd, 32).decode().strip() or "?"
            raise AlreadyExists(
                f"data root `{data_root}` is in use by another ketchd (pid {owner})",
                hint="stop that one, or give this one its own --data-root and --exec-root",
            ) from e
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


@contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Write this process's id to ``path`` (empty: nowhere) and take it away at the end."""
    if not path:
        yield
        return
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="ascii") as f:
        f.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if os.path.exists(path):
            os.unlink(path)


def unix_socket(path: str, group: str) -> socket.socket:
    """A listening unix socket, mode 0660; a stale one is replaced, a live one is AlreadyExists."""
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    if os.path.lexists(path):
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
        else:
            raise AlreadyExists(f"listen on unix://{path}: something answers there already")
        finally:
            probe.close()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    old = os.umask(0o117)
    try:
        server.bind(path)
    except OSError as e:
        server.close()
        raise InvalidArgument(f"listen on unix://{path}: {e}", hint="a socket's path has at most 107 bytes") from e
    finally:
        os.umask(old)
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.debug("no group %s: the socket belongs to root alone", group)
    server.listen(1024)
    server.setblocking(False)
    return server


def tcp_socket(host: str) -> socket.socket:
    """A listening TCP socket for ``tcp://ADDRESS:PORT`` (FailedPrecondition when the port is taken)."""
    address, port = tcp_address(host)
    try:
        family, kind, proto, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
    except OSError as e:
        raise FailedPrecondition(f"listen on `{host}`: {e}") from e
    server.listen(1024)
    server.setblocking(False)
    return server


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS settings for ``tcp://`` listeners; None when TLS is off."""
    if not (config.tls or config.tlsverify):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
        if config.tlsverify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(config.tlscacert)
    except (OSError, ssl.SSLError) as e:
        raise InvalidArgument(f"load TLS files: {e}") from e
    return context
