"""The ``ketch`` program: one command's module is imported; errors become a sentence and an exit code."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports `enum`
import gc
import os
import sys
from errno import EDQUOT, EFBIG, EIO, ENOSPC

from ketch import module_cache, stdio
from ketch.cli import catalog, colours, global_flags
from ketch.cli.errors import ArgumentsError, CombinationError, InterruptionError, TemplateSyntaxError, UsageError
from ketch.cli.options.flags import HelpRequested
from ketch.contexts import suppress
from ketch.errors import PROGRAM_EXIT_CODES, DeviceNotFound, KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_RUN_LIKE = ("run", "exec")
_TEMPLATE_FIRST = ("inspect", "info", "version", "events")  # they read a template before all else
_RUN_MODULES = ("containers.run:", "containers.exec:")


class _Terminated(BaseException):
    """SIGTERM has come: what is under way is cleaned up as after SIGINT."""


def main() -> NoReturn:
    """The console script; it ends the process.

    To take the interpreter down takes a tenth of a short command's time, and has nothing left to do: what is printed
    has been written.
    """
    _signal.signal(_signal.SIGTERM, _end)
    try:
        code = run(sys.argv[1:])
    except OSError as e:
        if e.errno not in (EDQUOT, EFBIG, EIO, ENOSPC):
            raise
        sys.stderr.write(f"ketch: {stdio.OutputError(e.errno, os.strerror(e.errno))}\n")
        code = 1
        stdio.drop_output()
    with suppress(OSError, ValueError):  # nobody reads it; it has been closed
        sys.stderr.flush()
    os._exit(code)


def run(argv: list[str]) -> int:
    """Carry out one command line and write all of its output; returns the exit code."""
    try:
        code = _carry_out(argv)
        sys.stdout.flush()  # the interpreter, which does it at its end, has a status and words of its own for a failure
        return code
    except KeyboardInterrupt:
        with suppress(OSError):
            sys.stdout.flush()
        return 130
    except _Terminated:
        with suppress(OSError):
            sys.stdout.flush()
        return 143
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _end(_number: int, _frame: object) -> NoReturn:
    raise _Terminated


def _carry_out(argv: list[str]) -> int:
    command = ""
    try:
        opts, args = global_flags.split(argv)
        target, command, rest = catalog.find(args)
        if target is None:
            from ketch.cli.guide import help_texts

            sys.stdout.write(colours.help_text(help_texts.of(rest), sys.stdout))
            return 0
        with module_cache.ModuleCache(f"ketch-{target.partition(':')[0]}"):
            import ketch.client.http  # noqa: F401  # nearly all commands use it

            action = catalog.load(target)
        if not target.startswith(_RUN_MODULES) and command in _RUN_LIKE:
            command = target  # `network create` is not `create`
        gc.freeze()
        gc.enable()
        return action(rest, global_flags.context(opts))
    except HelpRequested as e:
        if command == "" and e.flags is not None and not e.flags.command:
            return _carry_out(["help"])
        sys.stdout.write(colours.help_text(str(e), sys.stdout))
        return 0
    except KetchError as e:
        sys.stdout.flush()
        sys.stderr.write(colours.complaint(e, sys.stderr))
        return failure_code(command, e)


def failure_code(command: str, error: KetchError) -> int:
    """Docker's exit codes: 125 wrong flags, failed run; 126, 127 program not executable, not found; else 1."""
    if isinstance(error, UsageError):
        return 125
    if command in _TEMPLATE_FIRST and isinstance(error, TemplateSyntaxError):
        return 64
    if command not in _RUN_LIKE or isinstance(error, (ArgumentsError, CombinationError, InterruptionError)):
        return 1
    if isinstance(error, DeviceNotFound):
        return 127
    return PROGRAM_EXIT_CODES.get(type(error), 1 if command == "exec" else 125)
