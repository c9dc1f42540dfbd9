"""Times in messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

_SECOND = 10**9


def timestamp(ns: int) -> Timestamp | None:
    """A time in ns since 1970; None for 0, which means never."""
    return Timestamp(seconds=ns // _SECOND, nanos=ns % _SECOND) if ns else None
