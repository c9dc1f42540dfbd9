"""Relay between this process's terminal and the container's, for the foreground."""

from __future__ import annotations

import os
import select
from _signal import (  # type: ignore[import-not-found]
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIGWINCH,
    signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def relay(master_fd: int, pid: int) -> int:
    """Copy until the container's side closes, then wait for ``pid``; returns its exit code (128+n by signal).

    stdin's terminal mode is put back in any case; its size follows to the container.
    """
    saved: list[Any] | None = None
    if os.isatty(0):
        import termios
        import tty as pty_modes

        saved = termios.tcgetattr(0)
        pty_modes.setraw(0, termios.TCSADRAIN)  # not FLUSH: what was typed ahead counts
        _copy_size(master_fd)
        signal(SIGWINCH, lambda *_: _copy_size(master_fd))
    try:
        _copy(master_fd)
    finally:
        if saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, saved)
    return wait(pid)


def wait(pid: int) -> int:
    """Wait for a child; 128+n when a signal ended it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


def forward_signals(pid: int) -> None:
    """Forward this process's signals to ``pid`` while it is a child of ours."""

    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for number in (SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2):
        signal(number, forward)


def _copy_size(master_fd: int) -> None:
    from ketch.runtime import tty

    columns, rows = os.get_terminal_size(0)
    tty.set_size(master_fd, rows, columns)


def _copy(master_fd: int) -> None:
    sources = [master_fd, 0]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if master_fd in ready:
            try:
                data = os.read(master_fd, 65536)
            except OSError:
                return  # EIO: the last process with the terminal open is gone
            if not data:
                return
            _write(1, data)
        if 0 in ready:
            data = os.read(0, 65536)
            if data:
                _write(master_fd, data)
            else:
                sources.remove(0)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
