"""The ketchd of a program's own, and the session by which a ketchd knows that a program lives.

Programs with the same state directory share one.  It ends the containers of a program that has ended, and itself after
the last program, also when that was killed: the session is a connection, and the kernel closes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

from ketch import pidfd, places, programs
from ketch.aio.http import Http
from ketch.aio.waiting import Blocking, finished
from ketch.client import transport
from ketch.errors import FailedPrecondition, KetchError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.aio.streams import Stream

SESSION = "Ketch-Session"
_READY_S = 60.0
_END_S = 40.0  # a ketchd that ends waits 30 s for the last of its containers' monitors
_LOG, _PID = "ketchd.log", "started.pid"  # the daemon's own file goes before the daemon


def daemon_here() -> str:
    """The URL of a ketchd that answers on this machine, and is this user's or root's; an empty text: there is none."""
    host = places.answering().host
    try:
        transport.connect(host).close()
    except KetchError:
        return ""
    return host


def joined(state: str, url: str) -> tuple[Stream | None, str]:
    """A session with the engine at ``url`` and its id; with a ``state`` directory the engine is started if need be.

    Docker's daemon has no sessions (None).
    """
    if not state:
        return _session(url)
    with _only_one(state):
        try:
            return _session(url)
        except Unavailable:
            _await_end(state)  # there is none, or it is about to end
        process_fd = _start(state)
        try:
            _await(url, process_fd, state)
        finally:
            os.close(process_fd)
        return _session(url)


def _session(url: str) -> tuple[Stream | None, str]:
    client = Http(url, Blocking())
    try:
        answer = finished(client.upgrade("POST", "/ketch/session"))
    except NotFound:
        finished(client.request("GET", "/_ping"))
        client.close()
        return None, ""
    stream: Stream = answer.stream
    return stream, answer.headers.get(SESSION.lower(), "")


@contextlib.contextmanager
def _only_one(state: str) -> Iterator[None]:
    """A time in which no other program starts an engine in a state directory, which is made."""
    with _explained(state):
        os.makedirs(state, 0o700, exist_ok=True)
        _check_owner(state)
        fd = os.open(os.path.join(state, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with _explained(state):  # some network's file systems have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(state: str) -> Iterator[None]:
    """A time in which errors of the state directory's files are errors of its user's (FailedPrecondition)."""
    try:
        yield
    except OSError as e:
        raise FailedPrecondition(
            f"use `{state}` as the state directory: {e.strerror}", hint="name another one: ketch.Engine(state=DIR)"
        ) from e


def _check_owner(state: str) -> None:
    """Refuse a directory in which somebody else may put an engine, and files in the places of ours."""
    found = os.stat(state)
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
        who = "everybody" if found.st_mode & stat.S_IWOTH else f"user {found.st_uid}"
        raise FailedPrecondition(
            f"use `{state}` as the state directory: {who} may change what is in it",
            hint="name a directory of this user alone, or one that is not there yet: ketch.Engine(state=DIR)",
        )


def _await_end(state: str) -> None:
    """Wait until a ketchd that serves nobody any more is gone, and its state directory free."""
    try:
        with open(os.path.join(state, _PID), encoding="utf-8") as f:
            pid = int(f.read())
        fd = pidfd.open_process(pid)
    except (OSError, ValueError):
        return
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            if os.fsencode(state) in f.read().split(b"\0"):  # else its pid is another one's by now
                _has_ended(fd, _END_S)
    except OSError:
        return
    finally:
        os.close(fd)


def _has_ended(process_fd: int, patience_s: float) -> bool:
    """Whether a process ends in that time."""
    poll = select.poll()  # unlike select(2) it takes every descriptor
    poll.register(process_fd, select.POLLIN)
    return bool(poll.poll(patience_s * 1000))


def _start(state: str) -> int:
    """Start ketchd in a session of its own, where no terminal reaches it; returns a descriptor of the process.

    It is no child of this program, which need not know when it ends.
    """
    with _explained(state), open(os.path.join(state, _LOG), "wb") as log:
        done = subprocess.run(
            programs.python("ketch.daemon.apart", "--private", state),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=programs.environment(),
            check=False,
        )
        try:
            fd = pidfd.open_process(int(done.stdout))
        except (ValueError, ProcessLookupError):
            raise _failure(state) from None
        try:
            with open(os.path.join(state, _PID), "wb") as f:
                f.write(done.stdout)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _await(url: str, process_fd: int, state: str) -> None:
    """Wait until it answers (FailedPrecondition: it does not)."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if _has_ended(process_fd, 0.005):
            raise _failure(state)
        try:
            transport.connect(url).close()
        except KetchError:
            continue
        return
    signal.pidfd_send_signal(process_fd, signal.SIGKILL)
    raise FailedPrecondition(f"start an engine in `{state}`: it does not answer", hint=f"its log is {state}/{_LOG}")


def _failure(state: str) -> FailedPrecondition:
    return FailedPrecondition(f"start an engine in `{state}`: {_last_words(state)}")


def _last_words(state: str) -> str:
    with open(os.path.join(state, _LOG), encoding="utf-8", errors="replace") as f:
        lines = [line.strip() for line in f.read().splitlines() if line.strip()]
    return "; ".join(lines[-2:]).removeprefix("ketchd: ") if lines else "it ended without a word"
