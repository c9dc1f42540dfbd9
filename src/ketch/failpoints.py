"""Failpoints: places where tests make a process die, or a call fail, on purpose.

    KETCH_FAULT=start.bundle-written          SIGKILL oneself there
    KETCH_FAULT=start.bundle-written:3        at the third passage
    KETCH_FAULT=database.commit=enospc        raise that OSError there, at each passage (with ``:N`` at the N-th alone)
    KETCH_FAULT=@FILE                         whatever of these stands in FILE at the moment; nothing when it is empty
    KETCH_FAULT=*                             only list what is passed, in the trace

The variable is ketchd's, which hands it on to the launcher; monitors and containers' first processes are forks of that
one (a container's program never sees it).  Each process counts for itself.  With ``KETCH_FAULT_TRACE=FILE`` the name is
appended to that file first, which is how a test knows that it was here that the process died.  A mark that is not armed
costs two comparisons.

The marks, and some more places (`passage`), are also what the time of a start is divided by: who follows one (`follow`:
a task of ketchd, a monitor, a first process) has the time of each passage noted.
This module imports nothing but the interpreter's own: every monitor carries it in memory.
"""

from __future__ import annotations

import os
from _signal import SIGKILL  # type: ignore[import-not-found]
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import ContextVar

    Passage = tuple[str, int]  # a place, and when it was passed (monotonic, ns)

VARIABLES = ("KETCH_FAULT", "KETCH_FAULT_TRACE")
_ALL = "*"


class Fault:
    """An armed failpoint: ``name``, the error number to raise (0: die), and the passage (0: each)."""

    def __init__(self, text: str, trace: str) -> None:
        self.trace = trace
        self._file = text[1:] if text.startswith("@") else ""
        self._text = ""
        self._set("" if self._file else text)

    def _set(self, text: str) -> None:
        self._text, self.passed = text, 0
        rest, colon, count = text.partition(":")
        self.name, _, error = rest.partition("=")
        self.errno = _errno(error) if error else 0
        if colon and not count.isdecimal():
            raise ValueError(f"KETCH_FAULT={text}: `{count}` is not a number")
        self.at = int(count) if colon else (0 if self.errno else 1)

    def _look(self) -> None:
        """Read the file; where it is out of reach (behind another root), the last content stays valid."""
        try:
            fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        text = os.read(fd, 256).decode().strip()
        os.close(fd)
        if text != self._text:
            self._set(text)

    def reached(self, name: str) -> None:
        """Trigger the fault when this failpoint is armed."""
        if self._file:
            self._look()
        if self.name == _ALL:
            self._note(name)
        elif name == self.name:
            self.trigger()

    def _note(self, name: str) -> None:
        if self.trace:
            try:
                fd = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.write(fd, f"{name} {os.getpid()}\n".encode())
                os.close(fd)
            except OSError:
                pass  # out of reach: this process has a root or a file system of its own by now

    def trigger(self) -> None:
        """Count the passage; die or raise when it is the one."""
        self.passed += 1
        if self.at and self.passed != self.at:
            return
        self._note(self.name)
        if self.errno:
            raise OSError(self.errno, os.strerror(self.errno))
        os.kill(os.getpid(), SIGKILL)
        os._exit(137)  # the first process of a pid namespace cannot kill itself (pid_namespaces(7))


def _errno(name: str) -> int:
    import errno

    number = getattr(errno, name.upper(), None)
    if not isinstance(number, int):
        raise ValueError(f"KETCH_FAULT: `{name}` is no error of the kernel")
    return number


def _armed(environment: Mapping[str, str]) -> Fault | None:
    text = environment.get("KETCH_FAULT")
    return Fault(text, environment.get("KETCH_FAULT_TRACE", "")) if text else None


_fault = _armed(os.environ)


class _Followed:
    """The list of passages of a process that does one thing at a time; a ContextVar in others."""

    def __init__(self) -> None:
        self._passages: list[Passage] | None = None

    def get(self) -> list[Passage] | None:
        return self._passages

    def set(self, passages: list[Passage] | None) -> None:
        self._passages = passages


_followed: _Followed | ContextVar[list[Passage] | None] = _Followed()


def follow_by_task() -> None:
    """Have each task of this process followed by itself, with what it has threads do: for ketchd."""
    from contextvars import ContextVar  # whoever forks others has no memory for it

    global _followed
    _followed = ContextVar("followed", default=None)


def follow() -> list[Passage]:
    """The passages from now on, as they are noted in this process (`follow_by_task`: in this task), and its forks."""
    passages: list[Passage] = []
    _followed.set(passages)
    return passages


def followed() -> list[Passage] | None:
    """The passages that have been noted; None when nobody follows."""
    return _followed.get()


def follow_no_more() -> None:
    """Let passages go unnoted again."""
    _followed.set(None)


def passage(name: str) -> None:
    """Mark a place for those who follow alone."""
    passages = _followed.get()
    if passages is not None:
        passages.append((name, monotonic_ns()))


def failpoint(name: str) -> None:
    """Mark a place, named as in docs/crash-safety.md; does no more than `passage` unless it is armed."""
    passage(name)
    if _fault is not None:
        _fault.reached(name)


def armed() -> str:
    """The armed failpoint, as in the environment; empty: none."""
    return os.environ.get("KETCH_FAULT", "") if _fault is not None else ""


def environment() -> dict[str, str]:
    """The environment that arms a child process in the same way."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}
