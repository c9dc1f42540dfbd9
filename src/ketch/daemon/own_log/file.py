"""The log of a daemon that the command line has started: its standard error is a file that nobody else keeps small."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING

from ketch import places

if TYPE_CHECKING:
    from typing import TextIO

    Handler = logging.StreamHandler[TextIO]
else:
    Handler = logging.StreamHandler


def handler() -> Handler:
    """The handler for standard error; which file it is has been said in a variable, which is taken away."""
    path = os.environ.pop(places.LOG_VARIABLE, "")
    return KeptSmall(path, places.LARGEST_LOG) if path else logging.StreamHandler()


class KeptSmall(Handler):
    """A handler that puts what is in the file ``path`` aside, as ``.1``, when that is more than ``limit`` bytes.

    It is copied, and the file is cut: others (the launcher) have it open for as long as they live, and append to it.
    """

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._limit = self._most = limit

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        size = os.fstat(self.stream.fileno()).st_size
        if size > self._most:
            self._most = size + self._limit  # a full disk is tried again that much later
            with contextlib.suppress(OSError):
                _put_aside(self._path, self.stream.fileno())
                self._most = self._limit


def _put_aside(path: str, fd: int) -> None:
    if not os.path.samestat(os.stat(path), os.fstat(fd)):  # somebody has another one there by now
        raise FileNotFoundError(path)
    temporary = f"{path}.1.{os.getpid()}"
    try:
        shutil.copy(path, temporary)
        os.replace(temporary, f"{path}.1")
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    os.ftruncate(fd, 0)
