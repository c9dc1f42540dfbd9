"""A program driven as a person would: type, and wait for what should appear; on a terminal or on pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from tests.support.waiting import patient


class Driven:
    """A running program with something to read from and to type into; a context manager that ends it."""

    def __init__(self, pid: int, out_fd: int, in_fd: int) -> None:
        self.text = ""
        self.pid = pid
        self._out_fd = out_fd
        self._in_fd = in_fd
        self._status: int | None = None

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._status is None:
            self.signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for fd in {self._out_fd, self._in_fd} - {-1}:
            os.close(fd)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    def send(self, text: str) -> None:
        """Type."""
        os.write(self._in_fd, text.encode())

    def expect(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        """Read until ``pattern`` appears; what stands before it, and it, are taken away."""
        deadline = time.monotonic() + patient(timeout)
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end() :]
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self.read(left):
                raise AssertionError(f"no {pattern!r} in {len(self.text)} characters: … {self.text[-600:]!r}")

    def read(self, timeout: float) -> bool:
        """Take what there is; False at the end of the output and after the time."""
        if not select.select([self._out_fd], [], [], timeout)[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: the terminal's other side is closed
            data = os.read(self._out_fd, 65536)
            self.text += data.decode(errors="replace")
            return bool(data)
        return False

    def wait(self, timeout: float = 15) -> int:
        """The program's exit code; what it still printed is in ``text``."""
        deadline = time.monotonic() + patient(timeout)
        pidfd = os.pidfd_open(self.pid)
        try:
            while not select.select([pidfd], [], [], 0)[0]:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"the program does not end; it printed … {self.text[-600:]!r}")
                if not self.read(min(left, 0.2)):
                    select.select([pidfd], [], [], min(left, 0.2))
        finally:
            os.close(pidfd)
        self._status = os.waitpid(self.pid, 0)[1]
        while self.read(0):
            pass
        return os.waitstatus_to_exitcode(self._status)


class Terminal(Driven):
    """The program has a pseudo-terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pid, fd = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored in a run that outlives its own terminal
            os.execvpe(command[0], command, {**environment, "TERM": "xterm"})
        super().__init__(pid, fd, fd)

    def resize(self, rows: int, cols: int) -> None:
        """Change the terminal's size; the program gets SIGWINCH."""
        fcntl.ioctl(self._out_fd, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))


class Piped(Driven):
    """The program's stdin is a pipe; its stdout and stderr are one other pipe."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert process.stdin
        assert process.stdout
        super().__init__(process.pid, os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        process.stdout.close()
        process.stdin.close()
        process.returncode = 0  # the base class waits for it

    def close_stdin(self) -> None:
        """The program reads the end of its input."""
        os.close(self._in_fd)
        self._in_fd = -1
