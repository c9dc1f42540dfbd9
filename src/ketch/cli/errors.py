"""Errors that the command line makes itself, and that have exit codes of their own."""

from __future__ import annotations

from ketch.errors import InvalidArgument


class HelpRequested(Exception):
    """``--help`` was given; the text is the argument."""


class UsageError(InvalidArgument):
    """Flags that the command does not have, or values that they do not take."""


class TemplateError(InvalidArgument):
    """A template that asks for what is not there."""


class TemplateSyntaxError(TemplateError):
    """A template that cannot be understood."""
