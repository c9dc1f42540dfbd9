"""The container's terminal: a pair from its own devpts, made its process's controlling terminal."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
from errno import ENODEV, ENOENT

from ketch.runtime.failure import failure
from ketch.runtime.rootfs import paths

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
_PTMX = os.makedev(5, 2)


def open_pair(root_fd: int, path: str) -> tuple[int, int]:
    """(master, slave), both close-on-exec, from the ``ptmx`` of a devpts, found below ``root_fd``.

    The slave is opened through the master, not through a path.
    """
    try:
        try:
            master_fd = paths.open_in(root_fd, path, os.O_RDWR | os.O_NOCTTY, links=False)
        except FileNotFoundError:  # a /dev of the host's, or an old one
            path = path.replace("/pts/ptmx", "/ptmx")
            master_fd = paths.open_in(root_fd, path, os.O_RDWR | os.O_NOCTTY)
        try:
            return master_fd, _slave(master_fd)
        except BaseException:
            os.close(master_fd)
            raise
    except OSError as e:
        hint = "what is mounted on `/dev` hides it; mount it elsewhere, or below" if e.errno == ENOENT else None
        raise failure("tty", "open a terminal in `/dev/pts`", e, hint) from e


def open_pair_of_host() -> tuple[int, int]:
    """The same from the host's devpts, for a container without one; called while the root is the host's."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_pair(root_fd, "/dev/pts/ptmx")
    finally:
        os.close(root_fd)


def _slave(master_fd: int) -> int:
    status = os.fstat(master_fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
        raise OSError(ENODEV, "the container's `/dev/ptmx` is something else")
    fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("i", 0))
    return fcntl.ioctl(master_fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH when it changes."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def set_output_flags(fd: int, *, set_: int = 0, clear: int = 0) -> None:
    """Change how a terminal treats output (termios(3), c_oflag)."""
    modes = termios.tcgetattr(fd)
    modes[1] = (modes[1] | set_) & ~clear
    termios.tcsetattr(fd, termios.TCSADRAIN, modes)


def leave_line_feeds(fd: int) -> None:
    """Have a terminal make no carriage returns of its own."""
    set_output_flags(fd, clear=termios.ONLCR)


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
