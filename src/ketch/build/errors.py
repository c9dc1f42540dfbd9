"""Errors of builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.providers import Written
    from ketch.build.tree import Tree


class MountStates(NamedTuple):
    """The files of a command's mount before it ran and when it had failed; None: they are no tree of the build's."""

    before: Tree | None = None
    after: Tree | None = None


class CommandFailed(KetchError):
    """A command of a build that ended with an exit code that it may not have.

    ``command`` is its words in quotes; ``why`` stands in the place of the code where that does not say enough;
    ``left`` are the files as the command left them, as long as the lease of its vertex lasts; ``mounts`` the same, with
    those that it was given, by the numbers of its mounts.
    """

    def __init__(self, command: str, exit_code: int, why: str = "") -> None:
        reason = why or f"exit code: {exit_code}"
        super().__init__(f"process {command} did not complete successfully: {reason}")
        self.command, self.exit_code = command, exit_code
        self.left: Written | None = None
        self.mounts: Sequence[MountStates] = ()


class SolveError(KetchError):
    """A vertex that failed: its digest and name, and what its operation raised (``cause``)."""

    def __init__(self, vertex: str, name: str, cause: Exception) -> None:
        super().__init__(_told(cause), hint=cause.hint if isinstance(cause, KetchError) else None)
        self.vertex, self.name, self.cause = vertex, name, cause


class UnresolvedImage(KetchError):
    """An image that could not be found for a Dockerfile, in BuildKit's words; ``kind`` is that of the cause."""

    def __init__(self, reference: str, cause: KetchError) -> None:
        super().__init__(f"failed to resolve source metadata for {reference}: {cause.message}", hint=cause.hint)
        self.kind = cause.kind


def _told(cause: Exception) -> str:
    """Text of an exception, without the number of a system error."""
    if isinstance(cause, KetchError) or not isinstance(cause, OSError) or not cause.strerror:
        return str(cause)
    place = f": `{cause.filename}`" if isinstance(cause.filename, str) else ""
    return f"{cause.strerror[:1].lower()}{cause.strerror[1:]}{place}"
