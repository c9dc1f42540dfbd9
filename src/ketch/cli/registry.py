"""``registry``: hands over to the registry's own program, which shares nothing with the command line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ketch.cli.context import Context


def _become(command: str, args: list[str]) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", "ketch.registry", command, *args])


def cmd_serve(args: list[str], _ctx: Context) -> int:
    """Serve a registry."""
    _become("serve", args)


def cmd_gc(args: list[str], _ctx: Context) -> int:
    """Collect a registry's garbage."""
    _become("gc", args)


def cmd_htpasswd(args: list[str], _ctx: Context) -> int:
    """Make a line for a registry's file of users."""
    _become("htpasswd", args)
