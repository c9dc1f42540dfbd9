"""The daemon's listening sockets, its pid file, and the locks that keep a second daemon off its files.

What two daemons cannot share is claimed before anything is opened, made or removed.
"""

from __future__ import annotations

import grp
import hashlib
import logging
import os
import socket
import ssl
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ketch.daemon import activation
from ketch.daemon import pid_file as pidfile
from ketch.daemon.roots import real_path
from ketch.daemon.settings.config import Config, tcp_address
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from ketch.storage import file_lock
from ketch.storage.database.reserve import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)
_LEAVING_S = 1.0  # a daemon that was killed may take that long to go, or a child that it was just starting
_LONGEST_PATH = 107  # sockaddr_un without the final NUL


@contextmanager
def data_lock(data_root: str) -> Iterator[None]:
    """Hold ``data_root`` for this process; raises AlreadyExists when another daemon has it."""
    with _root_lock("data root", os.path.join(data_root, "ketch.lock"), "--data-root and --exec-root"):
        yield


@contextmanager
def exec_lock(exec_root: str) -> Iterator[None]:
    """Hold ``exec_root``: what its monitors left there is swept by its one daemon (AlreadyExists)."""
    with _root_lock("exec root", os.path.join(exec_root, "ketch-exec.lock"), "--exec-root"):
        yield


@contextmanager
def namespaces_lock(exec_root: str) -> Iterator[None]:
    """Hold the namespaces of a daemon that is not root's, before it enters them (AlreadyExists)."""
    with _root_lock("exec root", os.path.join(exec_root, "namespaces.lock"), "--exec-root"):
        yield


def state_lock(identity: int, data_root: str) -> file_lock.FileLock:
    """Lock out a daemon on a copy of this data root: it would have the same containers and cgroups."""
    try:
        return file_lock.take_named(f"state-{identity}", wait_s=_LEAVING_S)
    except file_lock.Held as e:
        raise AlreadyExists(
            f"use data root `{data_root}`: it is a copy of one that another ketchd (pid {e.pid}) uses, and its "
            "containers have the same ids, cgroups and networks",
            hint="stop that one first",
        ) from e


@contextmanager
def _root_lock(what: str, path: str, flags: str) -> Iterator[None]:
    try:
        lock = file_lock.take(path, wait_s=_LEAVING_S)
    except file_lock.Held as e:
        raise AlreadyExists(
            f"{what} `{os.path.dirname(path)}` is in use by another ketchd (pid {e.pid})",
            hint=f"stop that one, or give this one its own {flags}",
        ) from e
    with lock:
        yield


@contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Write this process's id to ``path`` (empty: nowhere) and take it away at the end (AlreadyExists)."""
    if not path:
        yield
        return
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with _claimed("pidfile", path, f"write pid file `{path}`", "--pidfile"):
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe would be waited for
            raise InvalidArgument(
                f"write pid file `{path}`: there is something that is no file",
                hint="remove it, or choose another place with --pidfile",
            )
        if owner := pidfile.owner(path):
            raise AlreadyExists(
                f"write pid file `{path}`: it belongs to process {owner} ({pidfile.name(owner)}), which is alive",
                hint="stop that one, or give this one its own --pidfile",
            )
        _write_pid(path)
        try:
            yield
        finally:
            if pidfile.read(path) == os.getpid():  # else somebody has put another in its place
                os.unlink(path)


def _write_pid(path: str) -> None:
    """Write the pid file; a full disk is no reason not to start."""
    try:
        with open(path, "w", encoding="ascii") as f:
            f.write(f"{os.getpid()}\n")
    except OSError as e:
        if e.errno not in FULL:
            raise
        log.warning("write pid file `%s`: %s", path, e.strerror)


@contextmanager
def addresses(hosts: list[str], *, secured: bool, any_length: bool = False) -> Iterator[dict[str, socket.socket]]:
    """Reserve all listening addresses until the end; yields the bound sockets of those that have no path.

    Nobody is answered yet: a socket's path is only claimed, a port only bound (AlreadyExists, FailedPrecondition).
    ``secured``: passed sockets are encrypted, or need not be.  ``any_length``: clients know how to reach a socket whose
    path is longer than an address.
    """
    bound: dict[str, socket.socket] = {}
    with ExitStack() as claims:
        for host in dict.fromkeys(hosts):
            if host.startswith("unix://"):
                path = os.path.abspath(host.removeprefix("unix://"))
                if not any_length:
                    _check_length(path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                claims.enter_context(_claimed("socket", path, f"listen on unix://{path}", "-H"))
                _check_silent(path)
            elif host.startswith(activation.SCHEME):
                bound[host] = claims.enter_context(activation.passed_socket(host, secured=secured))
            else:
                bound[host] = claims.enter_context(tcp_socket(host))
        yield bound


def _claimed(kind: str, path: str, what: str, flag: str) -> file_lock.FileLock:
    try:
        return file_lock.take_named(f"{kind}-{hashlib.sha256(real_path(path).encode()).hexdigest()[:32]}")
    except file_lock.Held as e:
        raise AlreadyExists(
            f"{what}: another ketchd (pid {e.pid}) uses it", hint=f"stop that one, or give this one its own {flag}"
        ) from e


def _check_length(path: str) -> None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidArgument(
            f"listen on unix://{path}: a socket's path has at most {_LONGEST_PATH} bytes",
            hint="choose a shorter one with -H",
        )


@contextmanager
def _short(path: str) -> Iterator[str]:
    """A time in which a socket's path has a form that is short enough for an address."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _check_replaceable(path: str) -> None:
    """InvalidArgument for a file or a directory: it may be somebody's, named by mistake."""
    kind = os.lstat(path).st_mode
    if not (stat.S_ISSOCK(kind) or stat.S_ISLNK(kind)):
        raise InvalidArgument(
            f"listen on unix://{path}: there is something that is no socket", hint="remove it, or choose another path"
        )


def _check_silent(path: str) -> None:
    """AlreadyExists when a program listens on the socket ``path``; one that its program left behind is fine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with _short(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise AlreadyExists(f"listen on unix://{path}: something answers there already")


def unix_socket(path: str, group: str) -> socket.socket:
    """A bound unix socket, mode 0660 for a group, 0600 for none; a stale one is replaced, a live one is AlreadyExists.

    A symbolic link is replaced, too, and never followed; anything else in its place is InvalidArgument.
    """
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    if os.path.lexists(path):
        _check_silent(path)
        _check_replaceable(path)
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    old = os.umask(0o117 if group else 0o177)
    try:
        with _short(path) as address:
            server.bind(address)
    except OSError as e:
        server.close()
        raise InvalidArgument(f"listen on unix://{path}: {e}") from e
    finally:
        os.umask(old)
    if not group:
        return server
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid, follow_symlinks=False)
    except KeyError:
        log.debug("no group %s: the socket belongs to root alone", group)
    return server


def tcp_socket(host: str) -> socket.socket:
    """A bound TCP socket for ``tcp://ADDRESS:PORT`` (FailedPrecondition when the port is taken)."""
    address, port = tcp_address(host)
    try:
        family, kind, proto, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
    except OSError as e:
        raise FailedPrecondition(f"listen on `{host}`: {e}") from e
    server.setblocking(False)
    return server


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS settings for ``tcp://`` listeners; None when TLS is off."""
    if not (config.tls or config.tlsverify):
        return None
    return _tls_context(config.tlscert, config.tlskey, config.tlscacert if config.tlsverify else "")


def builder_tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS settings for the ``tcp://`` listeners of BuildKit's clients; None when TLS is off there."""
    if not config.builder_tlscert:
        return None
    context = _tls_context(config.builder_tlscert, config.builder_tlskey, config.builder_tlscacert)
    context.set_alpn_protocols(["h2"])
    return context


def _tls_context(cert: str, key: str, authority: str) -> ssl.SSLContext:
    """A server's context; with an ``authority`` clients need its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        if authority:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as e:
        raise InvalidArgument(f"load TLS files: {e}") from e
    return context
