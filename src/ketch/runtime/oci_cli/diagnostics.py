"""Errors, warnings and remarks of a call: on stderr, and in the log file where callers read them."""

from __future__ import annotations

import sys

from ketch.errors import InvalidArgument
from ketch.runtime.failure import reason

_FORMATS = ("text", "json")


class Diagnostics:
    """The places of messages: the file ``--log``, in the form ``--log-format``; ``--debug`` adds remarks.

    Errors and warnings are on stderr as well.  The file is opened when there is something to write.
    """

    def __init__(self) -> None:
        self._path = ""
        self._format = "text"
        self._debug = False

    def configure(self, path: str, format_: str, *, debug: bool) -> None:
        """Take the global options; InvalidArgument for an unknown form."""
        self._path = path
        self._debug = debug
        if format_ not in _FORMATS:
            raise InvalidArgument(f"option `--log-format`: `{format_}` is neither text nor json")
        self._format = format_

    def debug(self, message: str) -> None:
        """Note what is being done, for ``--debug``."""
        if self._debug and self._path:
            self._append("debug", message)
        elif self._debug:
            sys.stderr.write(self._line("debug", message))

    def warn(self, message: str) -> None:
        """Warn of what goes on all the same."""
        sys.stderr.write(f"ketch-runtime: warning: {message}\n")
        self._append("warning", message)

    def fail(self, message: str, hint: str | None) -> None:
        """Say why the call failed."""
        sys.stderr.write(f"ketch-runtime: {message}\n" + (f"  {hint}\n" if hint else ""))
        self._append("error", message)

    def _append(self, level: str, message: str) -> None:
        if not self._path:
            return
        try:
            with open(self._path, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(self._line(level, message))
        except OSError as e:
            sys.stderr.write(f"ketch-runtime: write log `{self._path}`: {reason(e)}\n")

    def _line(self, level: str, message: str) -> str:
        import time

        from ketch.notation import documents, times

        now = times.rfc3339(int(time.time()) * 10**9)
        if self._format == "json":
            return documents.dumps({"level": level, "msg": message, "time": now}) + "\n"
        return f'time="{now}" level={level} msg={documents.dumps(message)}\n'
