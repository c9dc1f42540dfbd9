"""A daemon's error answers → the errors of ``ketch.errors``.

ketchd says of each error which ``kind`` it is of.  Other daemons do not: then the HTTP status decides, and the error's
``kind`` is empty.
"""

from __future__ import annotations

from ketch import errors
from ketch.notation import documents

_BY_KIND: dict[str, type[errors.KetchError]] = {
    cls.kind: cls
    for cls in (
        errors.KetchError,
        errors.InvalidArgument,
        errors.UnclassifiedArgument,
        errors.DeviceNotFound,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.ImageNotFound,
        errors.PlatformMismatch,
        errors.AlreadyExists,
        errors.Conflict,
        errors.NotModified,
        errors.FailedPrecondition,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.Unimplemented,
        errors.DataLoss,
        errors.RuntimeFailure,
        errors.ProgramNotFound,
        errors.ProgramNotExecutable,
        errors.MountMismatch,
    )
}
_BY_STATUS = {
    400: errors.InvalidArgument,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unimplemented,
    503: errors.Unavailable,
}


def error_in(status: int, body: bytes) -> errors.KetchError:
    """The error that an answer describes."""
    try:
        answer = documents.loads(body)
        message, kind = str(answer["message"]), str(answer.get("kind") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, kind = body.decode(errors="replace").strip() or f"status {status}", ""
    return error_of(message, kind, status)


def error_of(message: str, kind: str, status: int = 500) -> errors.KetchError:
    """The error of this kind; without a known kind, that of the status."""
    by_status = _BY_STATUS.get(status, errors.KetchError)
    if not kind:
        by_status = _failed_start(status, message) or by_status
    error = _BY_KIND.get(kind, by_status)(message)
    error.kind = kind
    return error


def _failed_start(status: int, message: str) -> type[errors.KetchError] | None:
    """The error of a container that cannot be started, told from dockerd's text: a program or a device is missing.

    This is the one place where a text decides.  dockerd's status is that of any wrong request, and Docker's own command
    line finds its exit codes 127 and 126 by these words.
    """
    if message.startswith("error gathering device information") and "no such file or directory" in message:
        return errors.DeviceNotFound
    if status != 400:
        return None
    if "executable file not found" in message or "no such file or directory" in message:
        return errors.ProgramNotFound
    if "permission denied" in message or "is a directory" in message:
        return errors.ProgramNotExecutable
    return None
