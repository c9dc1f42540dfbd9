"""Undo stacks; a failing step never hides the error that caused the undoing.

A plain ``ExitStack`` raises what its last failing callback raised: the first error, which says why, would only be that
one's context.  Here it stays the error, and what else went wrong is a note on it and a line in the log.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Undo(contextlib.ExitStack):
    """An ``ExitStack`` for callbacks; without an error on its way, a callback's failure is raised as it is."""

    def callback(self, callback: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> Callable[P, T]:
        """Register a function to be called at the end."""
        self.push(_step(lambda: callback(*args, **kwds)))
        return callback


class AsyncUndo(contextlib.AsyncExitStack):
    """The same for ``AsyncExitStack``."""

    def callback(self, callback: Callable[P, T], /, *args: P.args, **kwds: P.kwargs) -> Callable[P, T]:
        """Register a function to be called at the end."""
        self.push(_step(lambda: callback(*args, **kwds)))
        return callback

    def push_async_callback(
        self, callback: Callable[P, Awaitable[T]], /, *args: P.args, **kwds: P.kwargs
    ) -> Callable[P, Awaitable[T]]:
        """Register a coroutine function to be awaited at the end."""

        async def leave(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
            try:
                await callback(*args, **kwds)
            except Exception as e:
                if error is None:
                    raise
                _note(error, e)

        self.push_async_exit(leave)
        return callback


def _step(callback: Callable[[], object]) -> Callable[..., None]:
    """A callback as a stack's exit function."""

    def leave(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        try:
            callback()
        except Exception as e:
            if error is None:
                raise
            _note(error, e)

    return leave


def _note(error: BaseException, second: Exception) -> None:
    error.add_note(f"clean up: {second}")
    log.warning("clean up after `%s`: %s", error, second)
