"""The registry's errors (distribution-spec v1.1 §error-codes): code, status and message in one table."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Kind(NamedTuple):
    """One error: its code, HTTP status, and what it means."""

    code: str
    status: int
    message: str


BLOB_UNKNOWN = Kind("BLOB_UNKNOWN", 404, "blob unknown to registry")
BLOB_UPLOAD_INVALID = Kind("BLOB_UPLOAD_INVALID", 400, "blob upload invalid")
BLOB_UPLOAD_UNKNOWN = Kind("BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry")
DIGEST_INVALID = Kind("DIGEST_INVALID", 400, "provided digest did not match uploaded content")
MANIFEST_BLOB_UNKNOWN = Kind("MANIFEST_BLOB_UNKNOWN", 404, "manifest references a manifest or blob unknown to registry")
MANIFEST_INVALID = Kind("MANIFEST_INVALID", 400, "manifest invalid")
MANIFEST_UNKNOWN = Kind("MANIFEST_UNKNOWN", 404, "manifest unknown")
NAME_INVALID = Kind("NAME_INVALID", 400, "invalid repository name")
NAME_UNKNOWN = Kind("NAME_UNKNOWN", 404, "repository name not known to registry")
SIZE_INVALID = Kind("SIZE_INVALID", 413, "provided length is too large")
RANGE_INVALID = Kind("RANGE_INVALID", 416, "the chunk does not begin where the upload ends")
TAG_INVALID = Kind("TAG_INVALID", 400, "manifest tag is invalid")
PAGINATION_INVALID = Kind("PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested")
UNAUTHORIZED = Kind("UNAUTHORIZED", 401, "authentication required")
DENIED = Kind("DENIED", 403, "requested access to the resource is denied")
UNSUPPORTED = Kind("UNSUPPORTED", 405, "the operation is unsupported")
TOOMANYREQUESTS = Kind("TOOMANYREQUESTS", 429, "too many requests")
NO_SPACE = Kind("NO_SPACE", 507, "no space left for the upload")
UNAVAILABLE = Kind("UNAVAILABLE", 503, "the storage or the upstream registry does not answer")
UNKNOWN = Kind("UNKNOWN", 500, "unknown error")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Kind))


class Refused(Exception):
    """An error for the client; ``detail`` is for people and machines that look closer."""

    def __init__(self, kind: Kind, detail: Any = None, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(kind.message if detail is None else f"{kind.message}: {detail}")
        self.kind, self.detail, self.headers = kind, detail, headers or {}

    def body(self) -> bytes:
        """The JSON that the specification wants."""
        error = {"code": self.kind.code, "message": self.kind.message, "detail": self.detail}
        return msgspec.json.encode({"errors": [error]})
