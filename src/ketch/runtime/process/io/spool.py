"""A file of recent output for clients that are too slow, where the log cannot give it back byte by byte.

The ``json-file`` log knows lines and UTF-8 only.  From the moment a client lags until none does, the output is
written here, too, as frames and with the default log's bounds; then the files go.
"""

from __future__ import annotations

import os

from ketch.contexts import suppress
from ketch.runtime.logs import log_format

_FILE_SIZE, _FILES = 20 << 20, 5


class Spool:
    """The spool; ``log`` is set while a client needs it."""

    def __init__(self, log_dir: str) -> None:
        # Another run's monitor may still be feeding its clients from its own.
        self._directory = os.path.join(log_dir, f"spool.{os.getpid()}")
        self.log: log_format.FramedLogWriter | None = None
        for entry in os.listdir(log_dir):
            name, _, pid = entry.partition(".")
            if name == "spool" and not os.path.exists(f"/proc/{pid}"):  # left by a monitor that was killed
                _remove(os.path.join(log_dir, entry))

    def open(self) -> log_format.FramedLogWriter | None:
        """Begin a spool, or continue it; None when the disk is full."""
        if self.log is None:
            with suppress(OSError):
                os.makedirs(self._directory, 0o700, exist_ok=True)
                self.log = log_format.FramedLogWriter(self._directory, _FILE_SIZE, _FILES)
        return self.log

    def write(self, stream: int, data: bytes) -> None:
        """Write output, if a client needs it."""
        if self.log is not None:
            with suppress(OSError):  # a full disk: those who lag have a gap
                self.log.write(stream, data)

    def close(self) -> None:
        """Close the spool: no client lags."""
        if self.log is not None:
            self.log.close()
            self.log = None
            _remove(self._directory)


def _remove(directory: str) -> None:
    with suppress(OSError):
        for path in log_format.names(directory):
            os.unlink(path)
        os.rmdir(directory)
