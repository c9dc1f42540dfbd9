"""The security option for containers with containers of their own: ``nesting``, ``nesting=true``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.notation import booleans

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "nesting"


def split(option: str) -> tuple[str, str, str]:
    """A security option's name, separator and value: NAME=VALUE, or NAME:VALUE as old clients have it."""
    return option.partition("=" if "=" in option else ":")


def asked_for(options: Iterable[str] | None) -> bool:
    """Whether these options, which are valid, have it; the last one counts."""
    found = False
    for name, separator, value in map(split, options or ()):
        if name == NAME:
            found = not separator or booleans.parse(value) is True
    return found
