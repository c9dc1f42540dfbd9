"""Memory of a program with many short-lived threads."""

from __future__ import annotations

from ketch.linux.syscall import c_int, function

_M_ARENA_MAX = -8
_HEAPS = 2


def share_heaps() -> None:
    """Let all threads share two heaps; before any is started.

    Each thread would get one of its own, up to eight for each processor, and what large buffers leave free in one is
    of no use to the others.  An interpreter's threads take turns anyway.  A C library without such a setting has one
    heap.
    """
    try:
        mallopt = function("mallopt", c_int, c_int)
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, _HEAPS)
