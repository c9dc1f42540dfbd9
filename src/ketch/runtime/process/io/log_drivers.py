"""The log that a start message asks for: which files are written, and what goes elsewhere.

local       frames (`runtime.logformat`)          also without any --log-driver
json-file   Docker's lines (`runtime.jsonlog`), and a spool while a client lags
journald    messages (`process.remote`), and frames as a cache for ``logs`` unless that is disabled
syslog      the same
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
    from typing import Any

    from ketch.runtime.process.io.streams import Streams
    from ketch.runtime.process.loop import Loop


def open_log(loop: Loop, streams: Streams, log: dict[str, Any]) -> None:
    """Give ``streams`` the log that ``log`` (the start message's) describes (OSError)."""
    driver = log["driver"]
    if driver == "local" or log.get("cache"):
        streams.log = log_format.Writer(log["dir"], log["max_size"], log["max_files"])
    if driver == "json-file":
        streams.driver = json_log.Writer(
            log["path"], log["max_size"], log["max_files"], compress=log["compress"], attrs=log["attrs"]
        )
        streams.spool = Spool(log["dir"])
    elif driver in ("journald", "syslog"):
        far = (
            Journal(log["socket"], log["fields"])
            if driver == "journald"
            else Syslog(log["address"], log["facility"], log["format"], log["tag"])
        )
        streams.driver = Remote(loop, far, blocking=log["blocking"], limit=log["buffer"])
        streams.driver.on_moved = streams.relieved
