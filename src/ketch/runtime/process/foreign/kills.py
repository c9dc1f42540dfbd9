"""Signals to the first process of another runtime's container: that may be a machine's, and not the program.

The runtime is called by a process of its own: the monitor, which has others to serve, only hears how it ended.
"""

from __future__ import annotations

import gc
import os
from _signal import SIGKILL, set_wakeup_fd  # type: ignore[import-not-found]

from ketch.contexts import suppress
from ketch.linux import prctl
from ketch.notation import documents
from ketch.runtime.failure import to_message
from ketch.runtime.process.foreign import remains
from ketch.runtime.process.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ketch.runtime.process.foreign.program import ForeignProgram
    from ketch.runtime.process.loop import Loop

_HIGHEST_FD = 1 << 30
_DIED = {"ev": "failed", "kind": "setup", "step": "kill", "errno": 0, "message": "kill: the runtime's caller died"}


class Kills:
    """The signals that are under way; ``loop`` is the monitor's."""

    def __init__(self, loop: Loop, run_dir: str, container_id: str) -> None:
        self._loop = loop
        self._run_dir, self._id = run_dir, container_id

    def begin(self, pid: int, signal: int, done: Callable[[dict[str, Any] | None], object]) -> None:
        """Have a signal sent to ``pid``, PID 1, and ``done`` called with the error, if there is one (OSError).

        It may not be known yet (0).
        """
        program = remains.find(self._run_dir)
        if program is None:
            done(None)
            return
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            if os.fork() == 0:
                self._call(program, signal, writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._loop.add(reader, READ, lambda _: self._called(reader, pid, signal, done))

    def _call(self, program: ForeignProgram, signal: int, writer: int) -> NoReturn:
        """Call the runtime in the forked child, and write its error, or an empty object."""
        try:
            set_wakeup_fd(-1)
            gc.disable()
            prctl.set_parent_death_signal(SIGKILL)
            os.closerange(3, writer)
            os.closerange(writer + 1, _HIGHEST_FD)
            program.kill(self._id, signal)
            os.write(writer, b"{}")
        except BaseException as e:  # the parent must hear of everything
            os.write(writer, documents.dumps(to_message(e)).encode())
        finally:
            os._exit(0)

    def _called(self, reader: int, pid: int, signal: int, done: Callable[[dict[str, Any] | None], object]) -> None:
        text = os.read(reader, 1 << 16)
        self._loop.remove(reader)
        os.close(reader)
        error: dict[str, Any] = documents.loads(text) if text else _DIED
        if error and pid and _has_ended(pid):
            error = {}
        elif error and pid and signal == SIGKILL:
            with suppress(ProcessLookupError):
                os.kill(pid, signal)
            error = {}
        done(error or None)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended just now, or was waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
