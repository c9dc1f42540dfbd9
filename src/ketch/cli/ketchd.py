"""Start of a ketchd on this machine, in the background; its pid file and log."""

from __future__ import annotations

import os
import re
import subprocess
import time

from ketch import places, programs
from ketch.contexts import suppress
from ketch.errors import FailedPrecondition, KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_READY_S = 20.0


def _files(host: str) -> tuple[str, str]:
    """Pid file and log of the daemon at ``host``: each address has its own."""
    here = places.mine()
    if host == here.host:
        return here.pid_file, here.log
    suffix = re.sub(r"[^A-Za-z0-9.]+", "-", host.partition("://")[2]).strip("-")
    return here.pid_file.replace(".pid", f"-{suffix}.pid"), here.log.replace(".log", f"-{suffix}.log")


def start(host: str, flags: list[str] | None = None) -> int:
    """Start ketchd in the background and wait until it answers; returns its pid."""
    from ketch.client.transport import connect

    pidfile, log_path = _files(host)
    command = programs.python("ketch.daemon", "-H", host, "--pidfile", pidfile, *(flags or []))
    with _log(log_path) as log:
        before = os.fstat(log.fileno()).st_size
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**programs.environment(), places.LOG_VARIABLE: log_path},
        )
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            with open(log_path, "rb") as f:
                f.seek(before)
                reason, hint = last_words(f.read().decode("utf-8", "replace"))
            hint = f"{hint}; its log is {log_path}" if hint else f"its log is {log_path}"
            raise FailedPrecondition(f"start ketchd: it ended at once: {reason}", hint=hint)
        try:
            connect(host).close()
        except KetchError:
            time.sleep(0.02)
            continue
        return process.pid
    raise FailedPrecondition(f"start ketchd: it does not answer at {host}", hint=f"its log is {log_path}")


def _log(path: str) -> BinaryIO:
    """The log, to be written to (FailedPrecondition); a long one of former daemons is put aside."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        put_aside(path)
        return open(path, "ab")
    except OSError as e:
        raise FailedPrecondition(
            f"start ketchd: open its log `{path}`: {os.strerror(e.errno or 0).lower()}",
            hint="set HOME to a directory that this user may write to, or XDG_STATE_HOME, or start ketchd by hand",
        ) from e


def put_aside(log_path: str, limit: int = places.LARGEST_LOG) -> None:
    """Rename the log of former daemons to ``.1``, in the place of an older one, when it is larger than ``limit``."""
    with suppress(FileNotFoundError):
        if os.stat(log_path).st_size > limit:
            os.replace(log_path, f"{log_path}.1")


def last_words(log: str) -> tuple[str, str]:
    """The reason and the hint (empty: none) with which a daemon has ended, by the end of its log."""
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return "it printed nothing", "is there space left for its log?"
    if len(lines) > 1 and lines[-1].startswith("  ") and lines[-2].startswith("ketchd: "):
        return lines[-2].removeprefix("ketchd: ").removeprefix("start ketchd: "), lines[-1].strip()
    return lines[-1].strip().removeprefix("ketchd: ").removeprefix("start ketchd: "), ""
