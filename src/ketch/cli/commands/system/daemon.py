"""``daemon start``, ``stop``, ``status``, ``run`` and ``repair``."""

from __future__ import annotations

import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, NoReturn

from ketch import pidfd, programs
from ketch.cli.ketchd import start
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, KetchError, Unavailable

if TYPE_CHECKING:
    from ketch.cli.context import Context

_STOP_S = 20.0


def cmd_daemon(args: list[str], ctx: Context) -> int:
    """Start, stop or show the daemon on this machine; arguments after the verb are ketchd's flags."""
    verb, rest = (args[0], args[1:]) if args else ("", [])
    if verb == "start":
        if _answers(ctx):
            ctx.print(f"ketchd answers already at {ctx.host}")
            return 0
        ctx.print(f"started ketchd (pid {start(ctx.host, rest)}) at {ctx.host}")
        return 0
    if verb in ("stop", "status"):
        if rest:
            raise InvalidArgument(f"`ketch daemon {verb}` takes no words, but was given `{' '.join(rest)}`")
        return _stop(ctx) if verb == "stop" else _status(ctx)
    if verb == "run":
        _exec_ketchd(rest)
    if verb == "repair":
        _exec_ketchd(["--repair", *rest])
    raise InvalidArgument(
        f"`ketch daemon {verb}`: unknown", hint="use start, stop, status, run or repair [KETCHD FLAGS]"
    )


def _exec_ketchd(flags: list[str]) -> NoReturn:
    command = programs.python("ketch.daemon", *flags)
    os.execve(command[0], command, programs.environment())


def _answers(ctx: Context) -> bool:
    """Whether ketchd answers (AlreadyExists when another program does)."""
    from ketch.client.http import Client

    try:
        server = Client(ctx.host).request("GET", "/_ping").headers.get("server", "")
    except Unavailable:
        return False
    if not server.startswith("Ketch"):
        raise AlreadyExists(f"{ctx.host}: another program answers there: {server or 'it does not say which'}")
    return True


def _listener(host: str) -> int:
    """The pid of the process that listens at ``host``, from the kernel (unix(7), SO_PEERCRED); 0: none."""
    from ketch.client.http import connect

    if not host.startswith("unix://"):
        raise FailedPrecondition(
            f"stop the daemon at {host}: that can be done by its unix socket on its own machine only",
            hint="ketch -H unix://PATH daemon stop",
        )
    try:
        with connect(host) as sock:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except Unavailable:
        return 0
    pid = int(struct.unpack("3i", raw)[0])
    if not pid:
        raise FailedPrecondition(f"stop the daemon at {host}: it runs in another pid namespace", hint="stop it there")
    return pid


def _check_ketchd(pid: int, host: str) -> None:
    """Raise FailedPrecondition when the process is not ketchd: dockerd, or a service manager."""
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        words = f.read().split(b"\0")
    if not any(os.path.basename(word) == b"ketchd" or b"ketch.daemon" in word for word in words):
        what = b" ".join(words[:1]).decode(errors="replace")
        raise FailedPrecondition(f"stop the daemon at {host}: pid {pid} (`{what}`) is not ketchd")


def _stop(ctx: Context) -> int:
    import select

    pid = _listener(ctx.host)
    try:
        descriptor = pidfd.open_process(pid) if pid else -1
    except ProcessLookupError:
        descriptor = -1
    if descriptor < 0:
        ctx.print(f"ketchd is not running at {ctx.host}")
        return 0
    try:
        _check_ketchd(pid, ctx.host)
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], _STOP_S)[0]:
            raise KetchError(f"stop ketchd: pid {pid} did not end within {_STOP_S:.0f} s")
    except ProcessLookupError:
        ctx.print(f"ketchd (pid {pid}) ended just now")
        return 0
    except PermissionError as e:
        raise FailedPrecondition(f"stop ketchd: pid {pid} is root's", hint="use sudo ketch daemon stop") from e
    finally:
        os.close(descriptor)
    ctx.print(f"stopped ketchd (pid {pid}) at {ctx.host}; running containers stay up")
    return 0


def _status(ctx: Context) -> int:
    if not _answers(ctx):
        ctx.print(f"nothing answers at {ctx.host}")
        return 3
    info = ctx.client().request("GET", "/info").json()
    ctx.print(f"ketchd {info['ServerVersion']} answers at {ctx.host}")
    ctx.print(f"  {info['ContainersRunning']} of {info['Containers']} containers run, {info['Images']} images")
    ctx.print(f"  data root {info['DockerRootDir']}")
    return 0
