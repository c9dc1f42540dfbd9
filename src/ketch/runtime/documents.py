"""JSON texts, read and written by the interpreter's accelerator alone.

The package ``json`` compiles regular expressions when it is imported, which costs as much as a third of a container's
start; here it is imported only to say what is wrong with a text.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLANKS = " \t\n\r"


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


def dumps(value: object, *, spaces: bool = True) -> str:
    """The JSON text of a value, on one line, as by `json.dumps`; TypeError: there is none.

    Without ``spaces`` there are none after commas and colons.
    """
    colon, comma = (": ", ", ") if spaces else (":", ",")
    encode = _json.make_encoder({}, _refused, _json.encode_basestring_ascii, None, colon, comma, False, False, True)
    return "".join(encode(value, 0))


def _refused(value: object) -> object:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _explained(text: str | bytes) -> Any:
    import json

    return json.loads(text)
