"""The container's terminal: a pair from its own devpts, made its process's controlling terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from ketch.runtime.failure import failure

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def open_pair(ptmx: str = "/dev/pts/ptmx") -> tuple[int, int]:
    """(master, slave), both close-on-exec; the slave is opened through the master, not through a path."""
    try:
        try:
            master_fd = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            master_fd = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("i", 0))
        slave_fd = fcntl.ioctl(master_fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as e:
        raise failure("tty", "open a terminal in `/dev/pts`", e) from e
    return master_fd, slave_fd


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH when it changes."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def take(slave_fd: int) -> None:
    """Make the terminal this session leader's controlling one and its stdin, stdout and stderr.

    ``slave_fd`` is closed.
    """
    try:
        fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(slave_fd, fd, inheritable=True)
        if slave_fd > 2:
            os.close(slave_fd)
    except OSError as e:
        raise failure("tty", "take the controlling terminal", e) from e
