"""``NAME=VALUE`` from flags and files: ``--env``, ``--env-file``, ``--label``, ``--label-file``, as Docker reads them.

A file has one entry a line: no quotes, no escapes; blank lines and those that begin with # are skipped, blanks in front
are dropped, and a NAME alone takes the value that our own environment has, if any.
"""

from __future__ import annotations

import os

from ketch.cli.errors import UsageError
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import Options

_BLANKS = " \t\r\n\v\f"


def environment(opts: Options) -> list[str] | None:
    """The environment: ``--env-file``, then ``--env``; the last value of a name counts."""
    files = [f"{name}={value}" for path in opts["env-file"] for name, value in read_file(path)]
    result: dict[str, str] = {}
    for item in opts["env"]:
        name, equals, _ = item.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {item}")
        if equals:
            result[name] = item
        elif name in os.environ:
            result[name] = f"{name}={os.environ[name]}"
        else:
            result[name] = name  # takes away what the image says of it
    return [*files, *result.values()] or None


def labels(opts: Options) -> dict[str, str] | None:
    """``--label-file`` and ``--label`` together; a name alone has the empty value."""
    result: dict[str, str] = {}
    for path in opts["label-file"]:
        result.update(read_file(path, inherit=False))
    for item in opts["label"]:
        name, _, value = item.partition("=")
        if not name:
            raise UsageError(f"invalid label '{item}': empty name")
        result[name] = value
    return result or None


def read_file(path: str, *, inherit: bool = True) -> list[tuple[str, str]]:
    """(name, value) of each line that has one (InvalidArgument with the line that is wrong)."""
    try:
        with open(path, "rb") as f:
            lines = f.read().split(b"\n")
    except OSError as e:
        raise InvalidArgument(f"open {path}: {(e.strerror or '').lower()}") from e
    result = []
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8").lstrip(_BLANKS)
        except UnicodeDecodeError:
            raise InvalidArgument(f"invalid env file ({path}): invalid utf8 bytes at line {number}") from None
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if any(blank in name for blank in _BLANKS):
            raise InvalidArgument(f"invalid env file ({path}): variable '{name}' contains whitespaces (line {number})")
        if not name:
            raise InvalidArgument(f"invalid env file ({path}): no variable name on line '{line}' (line {number})")
        if equals:
            result.append((name, value))
        elif inherit and name in os.environ:
            result.append((name, os.environ[name]))
    return result
