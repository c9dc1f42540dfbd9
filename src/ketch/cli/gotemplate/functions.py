"""Functions of templates, and how Go writes and compares values."""

from __future__ import annotations

import json
import re

from ketch import printable
from ketch.cli.errors import TemplateError
from ketch.cli.gotemplate.strings import quote
from ketch.notation import booleans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Map(dict):  # type: ignore[type-arg]
    """A map of the API (labels, ports …): a missing key is no error, unlike a missing field."""


class NilMap(Map):
    """A map that is null."""


class NilList(list):  # type: ignore[type-arg]
    """A list that is null."""


class Missing:
    """The value of a missing key of a map."""


MISSING = Missing()
_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?(.)", re.S)


def truth(value: Any) -> bool:
    """The truth value by Go's rules: zero, empty and nil are false."""
    return value is not MISSING and bool(value)


def show(value: Any) -> str:
    """A value as Go's ``%v`` prints it."""
    if value is None:
        return "<nil>"
    if value is MISSING:
        return "<no value>"
    if isinstance(value, bool):
        return booleans.write(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, dict):
        pairs = sorted((str(k), v) for k, v in value.items() if not callable(v))
        return "map[" + " ".join(f"{k}:{show(v)}" for k, v in pairs) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(show, value)) + "]"
    return str(value)


def to_json(value: Any) -> str:
    """Compact JSON, as ``{{json .}}``; methods are left out."""
    if value is MISSING or isinstance(value, (NilMap, NilList)):
        return "null"
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if not callable(v)}
    return printable.json_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def type_name(value: Any) -> str:
    """Go's name of a type, for messages."""
    names = {str: "string", bool: "bool", int: "int", float: "float64", type(None): "nil"}
    return names.get(type(value)) or ("map" if isinstance(value, dict) else "list")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"wrong type for value; expected int; got {type_name(value)}")
    return value


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)):
        return len(value)
    raise TypeError(f"len of type {type_name(value)}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if key not in value:
                # the zero value of the map's own kind
                return NilList() if any(isinstance(v, list) for v in value.values()) else ""
            value = value[key]
        elif isinstance(value, (list, str)):
            if not 0 <= _whole(key) < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        else:
            raise TypeError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Any, *ends: int) -> Any:
    first, last = ends[0] if ends else 0, ends[1] if len(ends) > 1 else len(value)
    if not isinstance(value, (list, str)):
        raise TypeError(f"can't slice item of type {type_name(value)}")
    if not 0 <= _whole(first) <= _whole(last) <= len(value):
        raise IndexError(f"index out of range: {first}:{last}")
    return value[first:last]


def _join(items: Any, separator: str) -> str:
    if not isinstance(items, list):
        raise TypeError(f"wrong type for value; expected a list; got {type_name(items)}")
    return _text(separator).join(map(show, items))


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + _text(text) + " " * after if text else text


def _print(*values: Any) -> str:
    out: list[str] = []
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            out.append(" ")
        out.append(show(value))
    return "".join(out)


def _printf(template: str, *arguments: Any) -> str:
    used = 0

    def convert(match: re.Match[str]) -> str:
        nonlocal used
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if used >= len(arguments):
            return f"%!{verb}(MISSING)"
        value = arguments[used]
        used += 1
        text = _verb(verb, flags, precision, value)
        if "0" in flags and "-" not in flags and isinstance(value, (int, float)):
            return text.zfill(int(width or 0))
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))

    text = _VERB.sub(convert, _text(template))
    if used < len(arguments):
        text += "%!(EXTRA " + ", ".join(f"{type_name(v)}={show(v)}" for v in arguments[used:]) + ")"
    return text


def _verb(verb: str, flags: str, precision: str | None, value: Any) -> str:
    plus = "+" if "+" in flags and isinstance(value, (int, float)) and value >= 0 else ""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if verb == "v" or (verb == "s" and not number and not isinstance(value, bool)):
        text = show(value)
        return plus + (text[: int(precision)] if precision and verb == "s" else text)
    if verb == "q" and isinstance(value, (str, list)):
        return quote(value) if isinstance(value, str) else "[" + " ".join(quote(show(v)) for v in value) + "]"
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if verb in "dxXobc" and isinstance(value, int) and number:
        return plus + (chr(value) if verb == "c" else format(value, verb))
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "feEgG" and number:
        return plus + f"{float(value):.{precision or 6}{verb}}" if precision or verb in "feE" else show(value)
    if verb == "T":
        return type_name(value)
    return f"%!{verb}({type_name(value)}={show(value)})"


def _same(first: Any, second: Any) -> bool:
    kinds = [type_name(v) for v in (first, second)]
    if "nil" not in kinds and kinds[0] != kinds[1] and set(kinds) != {"int", "float64"}:
        raise TypeError("incompatible types for comparison")
    return bool(first == second)


def _eq(first: Any, second: Any, *others: Any) -> bool:
    return any(_same(first, other) for other in (second, *others))


def _order(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(first: Any, second: Any) -> bool:
        if isinstance(first, str) != isinstance(second, str) or type_name(first) in ("bool", "nil", "map", "list"):
            raise TypeError("incompatible types for comparison")
        return test(first, second)

    return compare


def _lazy(*_: Any) -> Any:
    raise AssertionError("`and` and `or` are evaluated by the renderer, which knows when to stop")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "index": _index,
    "slice": _slice,
    "len": _len,
    "join": _join,
    "split": lambda text, separator: _text(text).split(_text(separator)) if separator else list(_text(text)),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "title": lambda text: re.sub(r"(?<!\w)\w", lambda m: m[0].upper(), _text(text)),
    "truncate": lambda text, length: _text(text)[: _whole(length)],
    "pad": _pad,
    "print": _print,
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "printf": _printf,
    "eq": _eq,
    "ne": lambda first, second: not _same(first, second),
    "lt": _order(lambda first, second: bool(first < second)),
    "le": _order(lambda first, second: bool(first <= second)),
    "gt": _order(lambda first, second: bool(first > second)),
    "ge": _order(lambda first, second: bool(first >= second)),
    "not": lambda value: not truth(value),
    "and": _lazy,
    "or": _lazy,
}
# In the title line of a table these leave the titles as they are.
HEADER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    **dict.fromkeys(("json", "title", "lower", "upper"), lambda text: text),
    "truncate": lambda text, _: text,
}


def call(name: str, functions: dict[str, Callable[..., Any]], arguments: list[Any]) -> Any:
    """Call a function with the template's arguments (TemplateError when they do not fit)."""
    try:
        return functions[name](*(None if a is MISSING else a for a in arguments))
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as e:
        raise TemplateError(f"template parsing error: template: error calling {name}: {e}") from e
