"""Connections to daemons, as sockets: plain ones, and socket pairs behind which TLS or ssh is spoken.

Whoever has one can read, write, shut down one direction and wait for it as for any other socket, also where TLS has
no such things.
"""

from __future__ import annotations

import _socket
import os

from ketch import errors
from ketch.client import addresses

_LONGEST_ADDRESS = 107  # of a unix socket, without the NUL behind it (unix(7))
_children: list[int] = []  # pids of ssh's; those that have ended are waited for when the next one starts
# Where only Docker's command line is installed, it reaches the daemon's socket in the same way.
# A terminal's ^C is for the program alone, which goes on to use the connection; at a prompt of its own ssh takes it.
_SPARED = ("/bin/sh", "-c", "trap '' INT QUIT; exec \"$@\"", "ssh")
_REMOTE = "command -v ketch >/dev/null 2>&1 && exec ketch {0}system dial-stdio; exec docker {0}system dial-stdio"


def connect(address: str) -> _socket.socket:
    """A socket connected to a daemon (Unavailable when nobody answers, InvalidArgument for what is no address)."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        return connect_unix(rest)
    try:
        if scheme in ("tcp", "http"):
            import socket  # here: it imports `enum` and `selectors`, which are most of a short command's start

            sock = socket.create_connection(addresses.host_and_port(address))
            tls = addresses.tls_of(address)
            if tls is None:
                return sock
            from ketch.client import tls_relay  # here: it imports ssl and threads, which most commands do without

            return tls_relay.start(sock, tls, addresses.host_and_port(address)[0])
        if scheme == "ssh":
            return _through_ssh(address)
    except (OSError, ValueError) as e:
        raise _unreachable(address, e) from e
    raise errors.InvalidArgument(
        f"host `{address}`: unknown scheme", hint="use unix://PATH, tcp://ADDRESS:PORT or ssh://USER@HOST"
    )


def connect_unix(path: str) -> _socket.socket:
    """A connection to a unix socket, whose path may be longer than its address (Unavailable when nobody answers)."""
    sock = _socket.socket(_socket.AF_UNIX)
    try:
        if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
            sock.connect(path)
            return sock
        directory, _, name = path.rpartition("/")
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)
        return sock
    except (OSError, ValueError) as e:
        sock.close()
        raise _unreachable(f"unix://{path}", e) from e


def _unreachable(address: str, error: Exception) -> errors.KetchError:
    reason = getattr(error, "strerror", None) or str(error)
    message = f"cannot connect to the daemon at {address}: {reason}"
    path = address.removeprefix("unix://")
    if isinstance(error, PermissionError) and path != address:
        return errors.Unavailable(message, hint=_who_may(path))
    if not address.startswith("unix://"):
        return errors.Unavailable(message, hint="is it up, and does it listen there?")
    return errors.Unavailable(message, hint="is ketchd running? start it with: ketch daemon start")


def _who_may(path: str) -> str:
    """A sentence for a user who may not use a socket: who may."""
    try:
        owner = os.stat(path)
    except OSError:
        return "its directory is not for this user; ask root, or use an engine of your own: ketchd as this user"
    if not owner.st_mode & 0o020:
        return "it is its owner's alone; use sudo, or an engine of your own: ketchd as this user"
    import grp

    try:
        name = grp.getgrgid(owner.st_gid).gr_name
    except KeyError:
        name = str(owner.st_gid)
    return f"it is for root and the group {name}: sudo usermod -aG {name} $USER, and log in anew; or use sudo"


def _through_ssh(address: str) -> _socket.socket:
    """A socket whose other end is the standard streams of ``dial-stdio`` on another machine (InvalidArgument)."""
    import signal
    import socket
    from urllib.parse import unquote, urlsplit

    from ketch import programs

    url = urlsplit(address)
    if not url.hostname or url.password or url.query or url.fragment:
        raise errors.InvalidArgument(f"host `{address}`: not an address of ssh", hint="use ssh://[USER@]HOST[:PORT]")
    program = programs.find("ssh")
    if program is None:
        raise errors.FailedPrecondition(f"connect to {address}: there is no `ssh` here", hint="install openssh-client")
    words = [*_SPARED, program, "-o", "ConnectTimeout=30", "-T"]
    words += ["-l", unquote(url.username)] if url.username else []
    words += ["-p", str(url.port)] if url.port else []
    path = "" if url.path in ("", "/") else f"--host {_quoted('unix://' + unquote(url.path))} "
    words += ["--", _as_written(url.netloc), _REMOTE.format(path)]
    _children[:] = filter(_runs, _children)
    ours, theirs = socket.socketpair()
    with theirs:  # not by `subprocess`, which warns of processes that end after their program
        streams = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), number) for number in (0, 1)]
        ignored = [signal.SIGPIPE, signal.SIGXFSZ]  # by Python, and so by its children
        _children.append(os.posix_spawn(words[0], words, os.environ, file_actions=streams, setsigdef=ignored))
    return ours


def _as_written(netloc: str) -> str:
    """The host of an address, capitals and all: patterns in ssh's settings tell them from small letters."""
    host = netloc.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _runs(pid: int) -> bool:
    """Whether a child has not ended, nor been waited for."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
