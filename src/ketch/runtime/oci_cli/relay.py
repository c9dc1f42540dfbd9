"""Relay between this process's terminal and the container's, for the foreground."""

from __future__ import annotations

import os
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
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
    pidfd_send_signal,
    signal,
)

from ketch.contexts import suppress
from ketch.linux import prctl

_CHUNK = 65536
_REST = 1 << 20  # more than a terminal's buffers hold

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
        _show(master_fd, pid)
    return _wait(pid)


def _show(master_fd: int, pid: int) -> None:
    """Copy between stdio and the terminal until the child ends, or the container's side closes.

    It is this process's terminal, if it has one, that makes new lines of line feeds.  stdin's terminal mode is put back
    in any case; its size follows to the container.  Output that nobody takes any more is a terminal that hangs up.
    """
    saved: list[Any] | None = None
    if os.isatty(0):
        import termios
        import tty as pty_modes

        from ketch.runtime import tty

        saved = termios.tcgetattr(0)
        pty_modes.setraw(0, termios.TCSADRAIN)  # not FLUSH: what was typed ahead counts
        tty.set_output_flags(0, set_=termios.OPOST)
        _copy_size(master_fd)
        signal(SIGWINCH, lambda *_: _copy_size(master_fd))
    process_fd = os.pidfd_open(pid)
    try:
        _Copying(master_fd, process_fd).run()
    finally:
        os.close(process_fd)
        signal(SIGWINCH, SIG_DFL)
        os.close(master_fd)
        if saved is not None:
            import termios

            with suppress(termios.error):  # it is not there any more
                termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _wait(pid: int) -> int:
    """Reap children until ``pid`` is among them, and return its exit code."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def forward_signals(pid: int) -> None:
    """Forward this process's signals to its child ``pid``, and after the end of that to nobody."""
    process_fd = os.pidfd_open(pid)  # open as long as this process lives

    def forward(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            pidfd_send_signal(process_fd, number)

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
    from ketch.runtime import tty

    with suppress(OSError):  # our terminal is not there any more
        columns, rows = os.get_terminal_size(0)
        tty.set_size(master_fd, rows, columns)


class _Copying:
    """A copying of bytes in both directions, where a program that reads nothing is shown all the same."""

    def __init__(self, master_fd: int, process_fd: int) -> None:
        self._master_fd, self._process_fd = master_fd, process_fd
        self._input = b""  # read, and not yet taken by the terminal
        self._reading = True
        os.set_blocking(master_fd, False)

    def run(self) -> None:
        """Copy until the end of the process or of the terminal."""
        while True:
            ready = self._wait_for_some()
            if self._master_fd in ready and not (self._give_input() and self._show_output()):
                return
            if self._process_fd in ready:
                self._show_rest()
                return
            if 0 in ready:
                self._take_input()

    def _wait_for_some(self) -> set[int]:
        from select import POLLIN, POLLOUT, poll  # few calls have a terminal

        waiting = poll()
        waiting.register(self._process_fd, POLLIN)
        waiting.register(self._master_fd, POLLIN | (POLLOUT if self._input else 0))
        if self._reading and not self._input:
            waiting.register(0, POLLIN)
        return {fd for fd, _ in waiting.poll()}

    def _take_input(self) -> None:
        try:
            self._input = os.read(0, _CHUNK)
        except BlockingIOError:
            return  # somebody else was faster
        except OSError:
            self._input = b""  # our terminal is not there any more
        self._reading = bool(self._input)

    def _give_input(self) -> bool:
        """Give the terminal what it takes; False: it has ended."""
        try:
            if self._input:
                self._input = self._input[os.write(self._master_fd, self._input) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _show_output(self) -> bool:
        """Show what the terminal has; False: it has ended, or nobody looks."""
        try:
            data = os.read(self._master_fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last process with the terminal open is gone
        try:
            while data:
                data = data[_write_out(data) :]
        except OSError:
            return False
        return True

    def _show_rest(self) -> None:
        """Show what was written before the process ended; others may go on to write."""
        from select import POLLIN, poll

        waiting = poll()
        waiting.register(self._master_fd, POLLIN)
        for _ in range(_REST // _CHUNK):
            if not waiting.poll(0) or not self._show_output():
                return


def _write_out(data: bytes) -> int:
    """Write to stdout, which others may have made non-blocking; returns how much was written (OSError)."""
    try:
        return os.write(1, data)
    except BlockingIOError:
        from select import POLLOUT, poll

        waiting = poll()
        waiting.register(1, POLLOUT)
        waiting.poll()
        return 0
