"""The one family of errors that Ketch raises on purpose.

    KetchError
    ├── InvalidArgument      the request itself is wrong (syntax, range, escape from a tree)
    │   ├── UnclassifiedArgument   the same, where Docker has no class for it
    │   └── DeviceNotFound   the machine has no such device
    ├── Unauthenticated      who are you?
    ├── PermissionDenied     the system or the policy forbids it
    ├── NotFound             no such object
    │   └── ImageNotFound    no such image
    │       └── PlatformMismatch   there is one, for another platform
    ├── AlreadyExists        the name or address is taken
    ├── Conflict             the object is in a state that forbids the request
    ├── NotModified          the object is already as asked for
    ├── FailedPrecondition   the machine lacks what is needed
    ├── ResourceExhausted    no address, space, memory or descriptor left
    ├── Unavailable          try again later
    ├── Unimplemented        known, but not there yet
    ├── DataLoss             stored data is broken
    └── RuntimeFailure       a container's process could not be started
        ├── ProgramNotFound         there is no such program
        ├── ProgramNotExecutable    it is no program, or may not be run
        └── MountMismatch           a file on a directory, or the other way round

The family is transport-neutral: the HTTP status belonging to each class stands in
``ketch.api.errors`` and nowhere else.  A message says what was tried, on which object and why it
failed, in lower case and without a full stop; ``hint`` says what to do about it; ``kind`` is the class's
name in the API's answers, for programs: it never changes.
This module imports nothing: every monitor carries it in memory.
"""

from __future__ import annotations


class KetchError(Exception):
    """Base of every error raised on purpose; ``hint`` is one sentence saying what to do."""

    kind = "failure"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(KetchError):
    """The request is malformed or asks for something outside its permitted range."""

    kind = "invalid_argument"


class UnclassifiedArgument(InvalidArgument):
    """The request is malformed in one of those ways that Docker reports as if the server had failed."""

    kind = "unclassified_argument"


class DeviceNotFound(InvalidArgument):
    """A device that a container should get is not there."""

    kind = "device_not_found"


class Unauthenticated(KetchError):
    """Credentials are missing or wrong."""

    kind = "unauthenticated"


class PermissionDenied(KetchError):
    """The caller or the kernel's policy does not allow it."""

    kind = "permission_denied"


class NotFound(KetchError):
    """The named object does not exist."""

    kind = "not_found"


class ImageNotFound(NotFound):
    """No image here has that name."""

    kind = "image_not_found"


class PlatformMismatch(ImageNotFound):
    """An image has that name, but is for another platform than the one that was asked for."""

    kind = "platform_mismatch"


class AlreadyExists(KetchError):
    """Something else has that name, id or address."""

    kind = "already_exists"


class Conflict(KetchError):
    """The object's present state forbids the request."""

    kind = "conflict"


class NotModified(KetchError):
    """The object is already in the requested state."""

    kind = "not_modified"


class FailedPrecondition(KetchError):
    """The machine lacks a program, a kernel feature or a setting that is needed."""

    kind = "failed_precondition"


class ResourceExhausted(KetchError):
    """A pool, disk, limit or descriptor table is full."""

    kind = "resource_exhausted"


class Unavailable(KetchError):
    """A part that is needed does not answer just now."""

    kind = "unavailable"


class Unimplemented(KetchError):
    """The request is known, and this version cannot do it."""

    kind = "unimplemented"


class DataLoss(KetchError):
    """Stored data is missing or does not match its digest."""

    kind = "data_loss"


class RuntimeFailure(KetchError):
    """A process in a container could not be started.

    ``step`` names the operation that failed, ``errno`` its error number or 0.
    """

    kind = "runtime_failure"

    def __init__(self, message: str, *, step: str = "", errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.errno = errno


class ProgramNotFound(RuntimeFailure):
    """The container has no such program, or not what interprets it."""

    kind = "program_not_found"


class ProgramNotExecutable(RuntimeFailure):
    """The file is no program, or may not be executed."""

    kind = "program_not_executable"


class MountMismatch(RuntimeFailure):
    """A file was to be mounted on a directory, or a directory on a file."""

    kind = "mount_mismatch"

    @classmethod
    def of(cls, what: str) -> MountMismatch:
        """The error of ``what`` in Docker's words."""
        cause = "" if what.lower().endswith("not a directory") else ": not a directory"
        return cls(
            f"{what}{cause}: Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type",
            step="mounts",
        )


# What a shell says of such a program; Docker's users know them from containers, execs and its command line.
PROGRAM_EXIT_CODES: dict[type[KetchError], int] = {ProgramNotFound: 127, ProgramNotExecutable: 126}
