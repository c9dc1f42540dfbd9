"""The one family of errors that Ketch raises on purpose.

    KetchError
    ├── InvalidArgument      the request itself is wrong (syntax, range, escape from a tree)
    ├── Unauthenticated      who are you?
    ├── PermissionDenied     the system or the policy forbids it
    ├── NotFound             no such object
    ├── AlreadyExists        the name or address is taken
    ├── Conflict             the object is in a state that forbids the request
    ├── NotModified          the object is already as asked for
    ├── FailedPrecondition   the machine lacks what is needed
    ├── ResourceExhausted    no address, space, memory or descriptor left
    ├── Unavailable          try again later
    ├── Unimplemented        known, but not there yet
    ├── DataLoss             stored data is broken
    └── RuntimeFailure       a container's process could not be started

The family is transport-neutral: the HTTP status belonging to each class stands in
``ketch.api.errors`` and nowhere else.  A message says what was tried, on which object and why it
failed, in lower case and without a full stop; ``hint`` says what to do about it.
This module imports nothing: every monitor carries it in memory.
"""

from __future__ import annotations


class KetchError(Exception):
    """Base of every error raised on purpose; ``hint`` is one sentence saying what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(KetchError):
    """The request is malformed or asks for something outside its permitted range."""


class Unauthenticated(KetchError):
    """Credentials are missing or wrong."""


class PermissionDenied(KetchError):
    """The caller or the kernel's policy does not allow it."""


class NotFound(KetchError):
    """The named object does not exist."""


class AlreadyExists(KetchError):
    """Something else has that name, id or address."""


class Conflict(KetchError):
    """The object's present state forbids the request."""


class NotModified(KetchError):
    """The object is already in the requested state."""


class FailedPrecondition(KetchError):
    """The machine lacks a program, a kernel feature or a setting that is needed."""


class ResourceExhausted(KetchError):
    """A pool, disk, limit or descriptor table is full."""


class Unavailable(KetchError):
    """A part that is needed does not answer just now."""


class Unimplemented(KetchError):
    """The request is known, and this version cannot do it."""


class DataLoss(KetchError):
    """Stored data is missing or does not match its digest."""


class RuntimeFailure(KetchError):
    """A process in a container could not be started.

    ``kind`` is ``"not_found"`` (exit code 127), ``"not_executable"`` (126) or ``"setup"`` (128 for
    a start, 126 for an exec); ``step`` names the operation that failed, ``errno`` its error number or 0.
    """

    def __init__(
        self, message: str, *, kind: str = "setup", step: str = "", errno: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.step = step
        self.errno = errno
