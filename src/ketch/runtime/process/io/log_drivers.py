"""Log drivers of monitors: the log that a start message describes.

local       frames (`runtime.logs.log_format`); also without any --log-driver
json-file   Docker's lines (`runtime.logs.json_log`), and a spool while a client lags
journald    messages (`io.remote`), and frames as a cache for ``logs`` unless that is disabled
syslog, fluentd, gelf   the same
none        nothing
"""

from __future__ import annotations

from ketch.runtime.logs import json_log, log_format
from ketch.runtime.logs.journald import Journal
from ketch.runtime.logs.syslog import Syslog
from ketch.runtime.process.io.remote import Remote
from ketch.runtime.process.io.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.logs.destination import Destination
    from ketch.runtime.process.io.streams import Streams
    from ketch.runtime.process.loop import Loop
    from ketch.runtime.protocol import FluentdLog, GelfLog, JournaldLog, LogSettings, SyslogLog


def open_log(loop: Loop, streams: Streams, log: LogSettings) -> None:
    """Give ``streams`` the log that ``log`` (the start message's) describes (OSError)."""
    if log["driver"] == "local" or log.get("cache"):
        streams.log = log_format.FramedLogWriter(log["dir"], log["max_size"], log["max_files"])
    if log["driver"] == "json-file":
        streams.driver = json_log.JsonLogWriter(
            log["path"], log["max_size"], log["max_files"], compress=log["compress"], attrs=log["attrs"]
        )
        streams.spool = Spool(log["dir"])
    elif (
        log["driver"] == "journald"
        or log["driver"] == "syslog"
        or log["driver"] == "fluentd"
        or log["driver"] == "gelf"
    ):
        remote = Remote(loop, _message_format(log), blocking=log["blocking"], limit=log["buffer"])
        remote.on_drain = streams.on_log_drain
        streams.driver = remote


def _message_format(log: JournaldLog | SyslogLog | FluentdLog | GelfLog) -> Destination:
    if log["driver"] == "journald":
        return Journal(log["socket"], log["fields"])
    if log["driver"] == "syslog":
        return Syslog(log["address"], log["facility"], log["format"], log["tag"])
    # What few containers use is loaded with them, so that others' monitors do not become larger.
    if log["driver"] == "fluentd":
        from ketch.runtime.logs.fluentd import Fluentd

        return Fluentd(log)
    from ketch.runtime.logs.gelf import Gelf

    return Gelf(log)
