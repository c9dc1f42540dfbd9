"""Standard streams: opening closed ones, and errors of writing.

What cannot be said on stderr (its disk is full) changes neither what a program does nor its exit code.

A file or a socket that is opened later would get a closed stream's number, and a child would take it for its stdin
or stdout.  So each of the three is open before anything else is: as /dev/null, as Go's programs have it.
"""

from __future__ import annotations

import os
import sys
from _io import BufferedWriter, FileIO, TextIOWrapper  # the interpreter's start has them; `io` is more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class OutputError(OSError):
    """Standard output cannot be written; its text is a sentence in coreutils' words."""

    def __str__(self) -> str:
        return f"write error: {self.strerror}"


class _Unheard(FileIO):
    """Standard error's file: what cannot be written there is lost, unless its reader has gone (BrokenPipeError)."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except (BlockingIOError, BrokenPipeError):
            raise
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Open what is closed of stdin, stdout and stderr, and see to stderr's errors; to be called first of all."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # the interpreter's own word for a closed one
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    heard = BufferedWriter(_Unheard(2, "w", closefd=False))
    sys.stderr = TextIOWrapper(heard, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True)


def write(text: str) -> None:
    """Write to stdout at once (OutputError).

    The interpreter, which writes what is left at its end, ends with a status and a traceback of its own when it cannot.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as e:
        drop_output()
        raise OutputError(e.errno, os.strerror(e.errno or 0)) from e


def drop_output() -> None:
    """Discard all output that is still to be written to stdout."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


class Collected:
    """A context whose printed output is written at its end (OutputError).

    For argparse, which hears nothing of text that could not be written, or had only reached a buffer.
    """

    def __enter__(self) -> None:
        import io  # not in the memory of who has no help texts

        self._stdout: TextIO = sys.stdout
        self._text = sys.stdout = io.StringIO()

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stdout
        write(self._text.getvalue())
