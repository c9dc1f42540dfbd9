"""Errors of the command line itself, with exit codes of their own."""

from __future__ import annotations

from ketch.errors import InvalidArgument, KetchError


class UsageError(InvalidArgument):
    """Unknown flags, or invalid values of flags."""


class ArgumentsError(InvalidArgument):
    """Too few arguments, or too many."""


class CombinationError(InvalidArgument):
    """Flags that exclude each other, or streams that cannot be attached: nothing has been asked of the daemon."""


class TemplateError(InvalidArgument):
    """A template that refers to a missing field."""


class TemplateSyntaxError(TemplateError):
    """A template with a syntax error."""


class InterruptionError(KetchError):
    """A session that its user has ended: exit code 1, also of ``run``."""
