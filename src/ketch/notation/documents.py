"""JSON texts, read and written by the interpreter's accelerator alone, and how deep they are.

The package ``json`` compiles regular expressions when it is imported, which costs as much as a third of a container's
start, and as all the rest of a short command; here it is imported only to say what is wrong with a text.

Python's decoders give up at a depth of arrays and objects that differs with its version and with the stack they are
called from.  What comes from clients is held to one limit instead, which no body that means something reaches.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEEPEST = 500  # levels
_BLANKS = " \t\n\r"
_TEXT_OR_BRACKET = r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]'


class _Scanning:
    """The parameters of a scanner: what `json.JSONDecoder` has by default."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


_scan = _json.make_scanner(_Scanning)  # type: ignore[arg-type]


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError or RecursionError as by `json.loads`."""
    if isinstance(text, str):
        start = len(text) - len(text.lstrip(_BLANKS))
        try:
            value, end = _scan(text, start)
        except (StopIteration, ValueError, SystemError):  # the last: json, which has the error's class, is not loaded
            return _explained(text)
        return value if not text[end:].strip(_BLANKS) else _explained(text)
    try:
        return loads(text.decode())
    except UnicodeDecodeError:
        return _explained(text)


def dumps(value: object, *, spaces: bool = True, ascii: bool = True) -> str:
    """The JSON text of a value, on one line, as by `json.dumps`; TypeError: there is none.

    Without ``spaces`` there are none after commas and colons; with ``ascii`` all other characters are escaped.
    """
    colon, comma = (": ", ", ") if spaces else (":", ",")
    quoted = _json.encode_basestring_ascii if ascii else _json.encode_basestring
    encode = _json.make_encoder({}, _refused, quoted, None, colon, comma, False, False, True)
    return "".join(encode(value, 0))


def _refused(value: object) -> object:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _explained(text: str | bytes) -> Any:
    import json

    return json.loads(text)


def is_too_deep(text: str) -> bool:
    """Whether there are more than `DEEPEST` levels; the text need not be valid JSON."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in brackets(text):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            return True
    return False


def brackets(text: str) -> Iterator[str]:
    """The brackets of arrays and objects in their order, without those in texts."""
    import re  # here: few commands have a use for it, and each start would pay for it

    return (found for found in re.findall(_TEXT_OR_BRACKET, text, re.DOTALL) if found[0] != '"')
