"""``daemon start``, ``stop``, ``status``, ``run`` and ``repair``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NoReturn

from ketch import programs
from ketch.errors import FailedPrecondition, InvalidArgument, KetchError, Unavailable

if TYPE_CHECKING:
    from ketch.cli.context import Context

PIDFILE = "/var/run/ketchd.pid"
LOG = "/var/log/ketchd.log"
_READY_S, _STOP_S = 20.0, 20.0


def cmd_daemon(args: list[str], ctx: Context) -> int:
    """Start, stop or look at the daemon on this machine; words after the verb are ketchd's own flags."""
    verb, rest = (args[0], args[1:]) if args else ("", [])
    if verb == "start":
        if _answers(ctx):
            ctx.print(f"ketchd answers already at {ctx.host}")
            return 0
        ctx.print(f"started ketchd (pid {start(ctx.host, rest)}) at {ctx.host}")
        return 0
    if verb == "stop":
        return _stop(ctx)
    if verb == "status":
        return _status(ctx)
    if verb == "run":
        _become(rest)
    if verb == "repair":
        _become(["--repair", *rest])
    raise InvalidArgument(
        f"`ketch daemon {verb}`: unknown", hint="use start, stop, status, run or repair [KETCHD FLAGS]"
    )


def _become(flags: list[str]) -> NoReturn:
    command = programs.python("ketch.daemon", *flags)
    os.execve(command[0], command, programs.environment())


def _answers(ctx: Context) -> bool:
    from ketch.client.http import Client

    try:
        Client(ctx.host).request("GET", "/_ping")
    except Unavailable:
        return False
    return True


def start(host: str, flags: list[str] | None = None) -> int:
    """Start ketchd in the background and wait until it answers; returns its pid."""
    from ketch.client.http import connect

    if os.geteuid() != 0:
        raise FailedPrecondition("start ketchd: root is needed", hint="use sudo ketch daemon start")
    command = programs.python("ketch.daemon", "-H", host, "--pidfile", PIDFILE, *(flags or []))
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    with open(LOG, "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=programs.environment(),
        )
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FailedPrecondition(f"start ketchd: it ended at once: {_last_line()}", hint=f"its log is {LOG}")
        try:
            connect(host).close()
        except KetchError:
            time.sleep(0.02)
            continue
        return process.pid
    raise FailedPrecondition(f"start ketchd: it does not answer at {host}", hint=f"its log is {LOG}")


def _last_line() -> str:
    with open(LOG, encoding="utf-8", errors="replace") as f:
        lines = [line.strip() for line in f.read().splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _pid() -> int:
    try:
        with open(PIDFILE, encoding="ascii") as f:
            pid = int(f.read())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return 0
    return pid


def _stop(ctx: Context) -> int:
    pid = _pid()
    if not pid:
        ctx.print("ketchd is not running")
        return 0
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        import select

        if not select.select([descriptor], [], [], _STOP_S)[0]:
            raise KetchError(f"stop ketchd: pid {pid} did not end within {_STOP_S:.0f} s")
    finally:
        os.close(descriptor)
    ctx.print("stopped ketchd; running containers stay up")
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
