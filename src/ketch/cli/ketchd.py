"""Start of a ketchd on this machine, in the background; its pid file and log."""

from __future__ import annotations

import os
import re
import subprocess
import time

from ketch import places, programs
from ketch.errors import FailedPrecondition, KetchError

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
    from ketch.client.http import connect

    pidfile, log_path = _files(host)
    command = programs.python("ketch.daemon", "-H", host, "--pidfile", pidfile, *(flags or []))
    os.makedirs(os.path.dirname(log_path), exist_ok=True)
    with open(log_path, "ab") as log:
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
            reason = _last_line(log_path)
            raise FailedPrecondition(f"start ketchd: it ended at once: {reason}", hint=f"its log is {log_path}")
        try:
            connect(host).close()
        except KetchError:
            time.sleep(0.02)
            continue
        return process.pid
    raise FailedPrecondition(f"start ketchd: it does not answer at {host}", hint=f"its log is {log_path}")


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = [line.strip() for line in f.read().splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
