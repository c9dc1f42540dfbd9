"""``registry``: executes the registry's own program."""

from __future__ import annotations

import os

from ketch import programs
from ketch.cli.options.flags import HelpRequested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.cli.context import Context


def _exec_registry(command: str, args: list[str]) -> NoReturn:
    program = programs.python("ketch.registry", command, *args)
    if {"-h", "--help"} & {*args}:
        import subprocess

        text = subprocess.run(program, capture_output=True, text=True, check=False).stdout
        raise HelpRequested(text.replace("usage: ", "Usage:  ", 1))
    os.execve(program[0], program, programs.environment())


def cmd_serve(args: list[str], _ctx: Context) -> int:
    """Serve a registry."""
    _exec_registry("serve", args)


def cmd_gc(args: list[str], _ctx: Context) -> int:
    """Run a registry's garbage collection."""
    _exec_registry("gc", args)


def cmd_htpasswd(args: list[str], _ctx: Context) -> int:
    """Make a line for a registry's file of users."""
    _exec_registry("htpasswd", args)
