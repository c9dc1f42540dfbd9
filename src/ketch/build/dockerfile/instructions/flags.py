"""An instruction's flags: which it knows, and their values."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from ketch.build.dockerfile import suggest
from ketch.build.dockerfile.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.parser import Statement


class FlagKind(Enum):
    """The kinds of a flag: without a value, with one, with several."""

    SWITCH = auto()
    VALUE = auto()
    VALUES = auto()


class Flags:
    """The flags that one instruction was given."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag that is given once."""
        return self._values.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """The values of a flag that may be repeated."""
        return self._values.get(name, [])

    def switch(self, name: str) -> bool | None:
        """A switch; None where it is not given."""
        return self._values[name][0] == "true" if name in self._values else None


def read(statement: Statement, known: Mapping[str, FlagKind] | None = None) -> Flags:
    """The flags of a statement (DockerfileError for one that it does not know)."""
    known = known or {}
    values: dict[str, list[str]] = {}
    for flag in statement.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        kind = known.get(name)
        if kind is None:
            raise DockerfileError(f"unknown flag: --{name}{suggest.hint(name, known)}", word=f"--{name}")
        if name in values and kind is not FlagKind.VALUES:
            raise DockerfileError(f"duplicate flag specified: --{name}", word=flag)
        if kind is FlagKind.SWITCH:
            value = _truth(name, value, given=bool(equals))
        elif not equals:
            raise DockerfileError(f"missing a value on flag: --{name}", word=flag)
        values.setdefault(name, []).append(value)
    return Flags(values)


def _truth(name: str, value: str, *, given: bool) -> str:
    if given and not value:
        raise DockerfileError(f"missing a value on flag: --{name}", word=f"--{name}=")
    lower = value.lower() or "true"
    if lower not in ("true", "false"):
        raise DockerfileError(f"expecting boolean value for flag --{name}, not: {value}", word=f"--{name}={value}")
    return lower
