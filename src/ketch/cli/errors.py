"""Errors that end a command line before it is carried out."""

from __future__ import annotations

from ketch.errors import InvalidArgument


class HelpRequested(Exception):
    """``--help`` was given; the text is the argument."""


class UsageError(InvalidArgument):
    """Flags that the command does not have, or values that they do not take."""
