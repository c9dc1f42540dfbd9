"""Relay between this process's terminal and the container's, for the foreground."""

from __future__ import annotations

import os
import select
from _signal import (  # type: ignore[import-not-found]
    SIGALRM,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGRTMAX,
    SIGRTMIN,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIGWINCH,
    signal,
)

from ketch.linux import prctl
from ketch.runtime import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def adopt_orphans() -> None:
    """Become the parent of processes whose parents have ended, which a container without a pid namespace leaves."""
    prctl.set_child_subreaper()


def attend(master_fd: int, pid: int) -> int:
    """Stay with a child until its end, with (``master_fd`` not -1) the terminal; returns its exit code.

    A signal that ended it is 128+n.
    """
    if master_fd >= 0:
        _show(master_fd)
    return _wait(pid)


def _show(master_fd: int) -> None:
    """Copy between stdio and the terminal until the container's side closes.

    It is this process's terminal, if it has one, that makes new lines of line feeds.  stdin's terminal mode is put back
    in any case; its size follows to the container.
    """
    saved: list[Any] | None = None
    if os.isatty(0):
        import termios
        import tty as pty_modes

        saved = termios.tcgetattr(0)
        pty_modes.setraw(0, termios.TCSADRAIN)  # not FLUSH: what was typed ahead counts
        tty.set_output_flags(0, set_=termios.OPOST)
        _copy_size(master_fd)
        signal(SIGWINCH, lambda *_: _copy_size(master_fd))
    try:
        _copy(master_fd)
    finally:
        if saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _wait(pid: int) -> int:
    """Reap children until ``pid`` is among them, and return its exit code."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def forward_signals(pid: int) -> None:
    """Forward this process's signals to ``pid`` while it is a child of ours."""

    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for number in (
        SIGTERM,
        SIGINT,
        SIGHUP,
        SIGQUIT,
        SIGUSR1,
        SIGUSR2,
        SIGALRM,
        SIGCONT,
        *range(SIGRTMIN, SIGRTMAX + 1),
    ):
        signal(number, forward)


def _copy_size(master_fd: int) -> None:
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
