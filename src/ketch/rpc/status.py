"""Statuses of calls: gRPC's codes, and the error that carries one."""

from __future__ import annotations

import base64
import binascii
import enum
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from google.protobuf.message import DecodeError

from ketch import errors
from ketch.errors import KetchError
from ketch.rpc.wire.status_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.any_pb2 import Any

_LONGEST = 8 << 10  # bytes of a message in a header; the rest of such a text helps nobody
_UNPRINTABLE = re.compile(rb"[^\x20-\x24\x26-\x7e]")


class Code(enum.IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(KetchError):
    """A call that ended with another status than OK; ``details`` are messages for programs."""

    kind = "rpc"

    def __init__(self, code: Code, message: str, details: Sequence[Any] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.details = tuple(details)

    def __str__(self) -> str:
        return f"{self.message} ({self.code.name})"


# The first class that an error is of decides.
_CODES: list[tuple[type[KetchError], Code]] = [
    (errors.InvalidArgument, Code.INVALID_ARGUMENT),
    (errors.Unauthenticated, Code.UNAUTHENTICATED),
    (errors.PermissionDenied, Code.PERMISSION_DENIED),
    (errors.NotFound, Code.NOT_FOUND),
    (errors.AlreadyExists, Code.ALREADY_EXISTS),
    (errors.Conflict, Code.FAILED_PRECONDITION),
    (errors.FailedPrecondition, Code.FAILED_PRECONDITION),
    (errors.ResourceExhausted, Code.RESOURCE_EXHAUSTED),
    (errors.Unavailable, Code.UNAVAILABLE),
    (errors.Unimplemented, Code.UNIMPLEMENTED),
    (errors.DataLoss, Code.DATA_LOSS),
]


def as_rpc_error(error: KetchError) -> RpcError:
    """The status that says what ``error`` says."""
    if isinstance(error, RpcError):
        return error
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNKNOWN)
    return RpcError(code, f"{error.message}: {error.hint}" if error.hint else error.message)


def trailers_of(error: RpcError | None) -> list[tuple[str, str]]:
    """The headers at the end of an answer; None means OK."""
    if error is None:
        return [("grpc-status", "0")]
    trailers = [("grpc-status", str(int(error.code)))]
    if error.message:
        text = error.message.encode("utf-8", "replace")[:_LONGEST]
        trailers.append(("grpc-message", _UNPRINTABLE.sub(lambda found: b"%%%02X" % found[0][0], text).decode("ascii")))
    if error.details:
        status = Status(code=int(error.code), message=error.message, details=error.details)
        trailers.append(("grpc-status-details-bin", base64.b64encode(status.SerializeToString()).decode().rstrip("=")))
    return trailers


def error_of(trailers: Mapping[str, Sequence[str]]) -> RpcError | None:
    """The error that the headers at the end of an answer say; None means OK."""
    status = trailers.get("grpc-status", ("",))[0]
    if not (status.isascii() and status.isdigit()):
        return RpcError(Code.UNKNOWN, f"the answer has no status, but {status!r}")
    code = Code(int(status)) if int(status) in Code.__members__.values() else Code.UNKNOWN
    if code is Code.OK:
        return None
    message = unquote_to_bytes(trailers.get("grpc-message", ("",))[0]).decode("utf-8", "replace")
    return RpcError(code, message, _details(trailers.get("grpc-status-details-bin", ("",))[0]))


def _details(text: str) -> Sequence[Any]:
    """The messages for programs; none where they cannot be read, since the status is known without them."""
    try:
        return tuple(Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4))).details)
    except (binascii.Error, ValueError, DecodeError):
        return ()


def error_of_http(status: str) -> RpcError:
    """The error of an answer that is HTTP's and not gRPC's."""
    codes = {
        "400": Code.INTERNAL,
        "401": Code.UNAUTHENTICATED,
        "403": Code.PERMISSION_DENIED,
        "404": Code.UNIMPLEMENTED,
        "429": Code.UNAVAILABLE,
        "502": Code.UNAVAILABLE,
        "503": Code.UNAVAILABLE,
        "504": Code.UNAVAILABLE,
    }
    return RpcError(codes.get(status, Code.UNKNOWN), f"the peer answered with HTTP status {status or '(none)'}")
