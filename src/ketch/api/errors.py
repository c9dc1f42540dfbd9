"""HTTP statuses and bodies of Ketch's errors; the only module that knows status codes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch import errors, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERNAL = "internal"  # the kind of what is no KetchError: a fault of ketchd itself

STATUS: dict[type[errors.KetchError], int] = {
    errors.InvalidArgument: 400,
    errors.UnclassifiedArgument: 500,  # as Docker does
    errors.DeviceNotFound: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.ImageNotFound: 404,
    errors.PlatformMismatch: 404,
    errors.AlreadyExists: 409,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.FailedPrecondition: 500,
    errors.ResourceExhausted: 500,
    errors.Unavailable: 503,
    errors.Unimplemented: 501,
    errors.DataLoss: 500,
    errors.RuntimeFailure: 500,
    errors.ProgramNotFound: 400,  # the caller's mistake, as with Docker
    errors.ProgramNotExecutable: 400,
    errors.MountMismatch: 400,
    errors.KetchError: 500,
}


def status_of(error: errors.KetchError) -> int:
    """The HTTP status for an error."""
    return STATUS[next(cls for cls in type(error).__mro__ if cls in STATUS)]


def body_of(message: str, kind: str) -> dict[str, str]:
    """An error's body: Docker's ``message`` for people, our ``kind`` for programs (docs/api.md)."""
    return {"message": message, "kind": kind}


def description(error: errors.KetchError) -> dict[str, str]:
    """The body of an error."""
    return body_of(message_of(error), error.kind)


@contextmanager
def from_registry() -> Iterator[None]:
    """A registry that does not answer is an error of the server (500) to Docker's clients, not "try again" (503)."""
    try:
        yield
    except errors.Unavailable as e:
        raise errors.KetchError(e.message, hint=e.hint) from e


@contextmanager
def prefixed(prefix: str, *, unclassified: bool = False) -> Iterator[None]:
    """Put words before the message of an error; ``unclassified``: InvalidArgument becomes UnclassifiedArgument."""
    try:
        yield
    except errors.KetchError as e:
        e.message = prefix + e.message
        if unclassified and type(e) is errors.InvalidArgument:
            raise errors.UnclassifiedArgument(e.message, hint=e.hint) from e
        raise


def message_of(error: errors.KetchError) -> str:
    """The one line that clients print: what happened and, when known, what to do.

    It may quote names of an archive and words of a registry, and goes to a terminal.
    """
    return printable.lines(f"{error.message} ({error.hint})" if error.hint else error.message)
