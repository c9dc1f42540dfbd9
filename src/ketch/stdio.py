"""Standard streams that the parent closed.

A file or a socket that is opened later would get a closed stream's number, and a child would take it for its stdin
or stdout.  So each of the three is open before anything else is: as /dev/null, as Go's programs have it.
"""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Open what is closed of stdin, stdout and stderr; to be called first of all."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # the interpreter's own word for a closed one
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
