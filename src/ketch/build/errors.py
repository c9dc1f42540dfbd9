"""Errors of builds."""

from __future__ import annotations

from ketch.errors import KetchError


class CommandFailed(KetchError):
    """A command of a build that ended with an exit code that it may not have."""

    def __init__(self, command: str, exit_code: int) -> None:
        super().__init__(f'process "{command}" did not complete successfully: exit code: {exit_code}')
        self.command, self.exit_code = command, exit_code


class SolveError(KetchError):
    """A vertex that failed: its digest and name, and what its operation raised (``cause``)."""

    def __init__(self, vertex: str, name: str, cause: Exception) -> None:
        super().__init__(str(cause), hint=cause.hint if isinstance(cause, KetchError) else None)
        self.vertex, self.name, self.cause = vertex, name, cause
