"""``daemon start``, ``stop``, ``status``, ``run`` and ``repair``."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import closing

from ketch import pidfd, programs
from ketch.cli.commands.system import survivors
from ketch.cli.ketchd import start
from ketch.cli.options.flags import FlagSet
from ketch.errors import AlreadyExists, FailedPrecondition, KetchError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.cli.context import Context

_STOP_S = 20.0


def cmd_start(args: list[str], ctx: Context) -> int:
    """Start ketchd in the background, unless it answers; the arguments are its flags."""
    _help_on(args, "start", "Start ketchd in the background", "[KETCHD FLAGS]")
    if _answers(ctx):
        ctx.print(f"ketchd answers already at {ctx.host}")
        return 0
    ctx.print(f"started ketchd (pid {start(ctx.host, args)}) at {ctx.host}")
    return 0


def cmd_stop(args: list[str], ctx: Context) -> int:
    """Stop the ketchd that listens here; containers stay up, unless they are to stop as well; it says what they did."""
    spec = FlagSet("daemon stop", "ketch daemon stop [OPTIONS]", "Stop ketchd; containers keep running")
    spec.bool("containers", help="Stop containers, too; those whose restart policies want it come back with ketchd")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    return _stop(ctx, containers=opts["containers"])


def cmd_status(args: list[str], ctx: Context) -> int:
    """Show whether ketchd answers, and what it holds; 3 when it does not."""
    spec = _help_on(args, "status", "Show whether ketchd runs")
    spec.arguments(spec.parse(args)[1], 0, 0)
    return _status(ctx)


def cmd_run(args: list[str], _ctx: Context) -> int:
    """Run ketchd in the foreground; the arguments are its flags."""
    _help_on(args, "run", "Run ketchd in the foreground", "[KETCHD FLAGS]")
    _exec_ketchd(args)


def cmd_repair(args: list[str], _ctx: Context) -> int:
    """Repair a damaged database of ketchd's; the arguments are its flags."""
    _help_on(args, "repair", "Repair a damaged database", "[KETCHD FLAGS]")
    _exec_ketchd(["--repair", *args])


def _help_on(args: list[str], verb: str, summary: str, usage: str = "") -> FlagSet:
    """The flags of a verb, which are none; HelpRequested when help is wanted."""
    spec = FlagSet(f"daemon {verb}", f"ketch daemon {verb} {usage}".rstrip(), summary)
    if args[:1] in (["--help"], ["-h"]):
        spec.parse(args[:1])
    return spec


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
    from ketch.client.transport import connect

    if not host.startswith("unix://"):
        raise FailedPrecondition(
            f"stop the daemon at {host}: that can be done by its unix socket on its own machine only",
            hint="ketch -H unix://PATH daemon stop",
        )
    try:
        with closing(connect(host)) as sock:
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


def _service(pid: int) -> str:
    """The service of systemd that ketchd is (its manager wants to be told of its start); empty: it is none."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            told = b"NOTIFY_SOCKET=" in f.read()
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
            names = [os.path.basename(line.strip()) for line in f if line.startswith("0::") or ":name=systemd:" in line]
    except OSError:  # another user's: it will not be stopped either
        return ""
    return next((name for name in names if told and name.endswith(".service")), "")


def _stop(ctx: Context, *, containers: bool) -> int:
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
        service = _service(pid)
        before = survivors.running(ctx.host)
        if containers:
            signal.pidfd_send_signal(descriptor, signal.SIGUSR2)
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], None if containers else _STOP_S)[0]:
            raise KetchError(
                f"stop ketchd: pid {pid} did not end within {_STOP_S:.0f} s",
                hint="without live-restore it waits for its containers; its log says what it does",
            )
    except ProcessLookupError:
        ctx.print(f"ketchd (pid {pid}) ended just now")
        return 0
    except PermissionError as e:
        raise FailedPrecondition(f"stop ketchd: pid {pid} is root's", hint="use sudo ketch daemon stop") from e
    finally:
        os.close(descriptor)
    ctx.print(f"stopped ketchd (pid {pid}) at {ctx.host}; {survivors.told(before)}")
    if service:
        ctx.print(f"it was {service}, which systemd may start again; `systemctl stop` stops that, and its socket")
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
