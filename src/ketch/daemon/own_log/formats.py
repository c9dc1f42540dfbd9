"""The forms of the daemon's own lines: text, and JSON as dockerd's."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from ketch import printable

_TEXT = "%(asctime)s %(levelname)s %(message)s"


def formatter(name: str) -> logging.Formatter:
    """The formatter of a name of ``--log-format``."""
    return _Lines() if name == "json" else _Formatter(_TEXT)


class _Formatter(logging.Formatter):
    """Formatter of log lines: control characters in untrusted text are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable.cell(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable.lines(super().format(record))


class _Lines(logging.Formatter):
    """Formatter of log lines as JSON objects, with dockerd's names."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="microseconds")
        line = {"level": record.levelname.lower(), "msg": record.getMessage(), "time": moment}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
