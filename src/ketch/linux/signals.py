"""Signal dispositions and the mask as a new program expects them (signal(7), rt_sigaction(2))."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

from ketch.contexts import contextmanager
from ketch.linux.syscall import c_char_p, c_int, c_long, failed, number, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)  # by which people and service managers end a program
# Between SIGSYS and SIGRTMIN; the C library keeps them for itself and refuses to set them.
_OF_THE_LIBRARY = (32, 33)
_DEFAULT = bytes(32)  # struct sigaction: SIG_DFL, no flags, no restorer, empty mask
_rt_sigaction = raw("rt_sigaction", c_int, c_char_p, c_char_p, c_long)
_RT_SIGACTION = number("rt_sigaction")


def hold() -> None:
    """Block the signals of `ENDING` until `release`; a handler's exception for one that came before is raised here."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)


def release() -> None:
    """Let them come, also those that came meanwhile: a handler's exception is raised here."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)


@contextmanager
def held() -> Iterator[None]:
    """Hold them for what is not to be interrupted halfway."""
    hold()
    try:
        yield
    finally:
        release()


def reset() -> None:
    """Give every signal its default action and block none.

    execve(2) does the first for those with a handler only; what a process or any of its ancestors ignored, or
    blocked, its program would ignore and block as well.
    """
    for signal in range(1, _signal.NSIG):
        # The interpreter looked at its inheritance when it started, so most signals need no system call.
        if _signal.getsignal(signal) == _signal.SIG_IGN:
            _signal.signal(signal, _signal.SIG_DFL)
    for signal in _OF_THE_LIBRARY:
        if _rt_sigaction(_RT_SIGACTION, signal, _DEFAULT, None, 8) < 0:
            raise failed("rt_sigaction")
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
