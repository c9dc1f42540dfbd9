"""Results of programs in containers, and of questions about them; the errors of programs that went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ketch.errors import KetchError

if TYPE_CHECKING:
    from typing import Any

_KILLED = 137  # 128 + SIGKILL, as shells say it


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a program: what it said, and how it ended.

    ``duration`` is in seconds, without the time that making and removing a container takes.  ``oom_killed``: a process
    was ended because the memory that the container may have was used up.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration: float = 0.0
    oom_killed: bool = False
    argv: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Result:
        """Itself, when the program ended with 0 (CommandFailed otherwise)."""
        if self.exit_code:
            raise CommandFailed(self)
        return self


class ProgramError(KetchError):
    """A program in a container went wrong; ``result`` is what is known of it."""

    def __init__(self, message: str, result: Result, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.message, self.result, self.hint)


class CommandFailed(ProgramError):
    """A program ended with another exit code than 0, and should not have."""

    kind = "command_failed"

    def __init__(self, result: Result) -> None:
        last = result.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        why = "it was killed: out of memory" if result.oom_killed else last
        message = f"run {_shown(result.argv)}: exit code {result.exit_code}" + (f": {why}" if why else "")
        super().__init__(message, result)


class TimedOut(ProgramError):
    """A program did not end in its time, and was killed with all that it had started."""

    kind = "timed_out"

    def __init__(self, result: Result, timeout_s: float) -> None:
        super().__init__(f"run {_shown(result.argv)}: it did not end within {timeout_s:g} s, and was killed", result)


class TooMuchOutput(ProgramError):
    """A program said more than it may, and was killed with all that it had started."""

    kind = "too_much_output"

    def __init__(self, result: Result, limit: int) -> None:
        super().__init__(f"run {_shown(result.argv)}: it wrote more than {limit} bytes, and was killed", result)


def _restored(cls: type[ProgramError], message: str, result: Result, hint: str | None) -> ProgramError:
    """An error that another process has raised (pickle)."""
    error = cls.__new__(cls)
    ProgramError.__init__(error, message, result, hint=hint)
    return error


def _shown(argv: tuple[str, ...]) -> str:
    """A program and its arguments in a message."""
    import shlex

    text = shlex.join(argv)
    return f"`{text}`" if len(text) <= 80 else f"`{text[:77]}...`"


@dataclass(frozen=True, slots=True)
class Logs:
    """The output of a container's own program until now."""

    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that a container takes: processor time in seconds, memory in bytes.

    ``memory_limit`` and ``pids_limit`` are 0 where there is none.
    """

    cpu: float
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its id, its names with tags, its size in bytes."""

    id: str
    tags: tuple[str, ...] = ()
    size: int = 0

    def __str__(self) -> str:
        return self.tags[0] if self.tags else self.id


def usage(answer: dict[str, Any]) -> Usage:
    """The usage in an answer of ``stats``."""
    memory, pids = answer.get("memory_stats") or {}, answer.get("pids_stats") or {}
    inactive = (memory.get("stats") or {}).get("inactive_file", 0)
    return Usage(
        cpu=((answer.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0) / 1e9,
        memory=max(0, memory.get("usage", 0) - inactive),
        memory_limit=memory.get("limit", 0),
        pids=pids.get("current", 0),
        pids_limit=pids.get("limit", 0) or 0,
    )


def moment(text: str) -> datetime:
    """A time of the API, which has nanoseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(head) + timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))


def told(state: dict[str, Any], stdout: bytes, stderr: bytes, argv: tuple[str, ...]) -> Result:
    """The result of a program, of whose end the engine has told as much as it knows."""
    duration = 0.0
    begin, end = state.get("StartedAt"), state.get("FinishedAt")
    if isinstance(begin, int) and isinstance(end, int):
        duration = max(0.0, (end - begin) / 1e9)
    elif begin and end:
        duration = max(0.0, (moment(end) - moment(begin)).total_seconds())
    return Result(int(state["ExitCode"]), stdout, stderr, duration, bool(state.get("OOMKilled")), argv)


def killed(stdout: bytes, stderr: bytes, argv: tuple[str, ...], duration: float) -> Result:
    """The result of a program that was killed from here."""
    return Result(_KILLED, stdout, stderr, duration, argv=argv)
