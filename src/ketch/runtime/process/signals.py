"""A monitor's signals: those that would end it are ignored, the informative ones wake its loop."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

_IGNORED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE)
_TELLING = (_signal.SIGCHLD, _signal.SIGUSR1)  # a child has ended; the socket is to be made anew


def watch() -> int:
    """A descriptor that gives the number of each of these signals as a byte (signal.set_wakeup_fd)."""
    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in _TELLING:
        _signal.signal(number, lambda _number, _frame: None)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader
