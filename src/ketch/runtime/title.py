"""Process title."""

from __future__ import annotations

import os

from ketch.contexts import suppress


class Title:
    """The memory of the command line that ``ps`` shows (proc_pid_cmdline(5)); forks have it, too."""

    def __init__(self) -> None:
        fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
        os.close(fd)
        self._start = int(fields[45])  # arg_start, the 48th field; the first two stand before the bracket
        self._room = int(fields[46]) - self._start

    def set(self, text: str) -> None:
        """Set the title, cut to the available room."""
        with suppress(OSError):  # only a name
            fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
            os.pwrite(fd, text.encode()[: self._room - 1].ljust(self._room, b"\0"), self._start)
            os.close(fd)
