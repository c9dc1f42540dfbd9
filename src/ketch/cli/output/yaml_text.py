"""Plain data as YAML 1.2 text, in block style: dicts, lists, strings, whole numbers and truth values.

Strings are written plainly where every reader takes them for strings, also those of YAML 1.1 (``no``, ``1:20``,
``0o17``), else in double quotes, whose escapes are JSON's.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Begins with a letter or a path's slash, ends with something visible, has no ": " and no " #" inside.
_PLAIN = re.compile(r"[A-Za-z/_](?:[A-Za-z0-9 _./@=+,*-]|:(?=[A-Za-z0-9_./=+-]))*(?<! )\Z", re.ASCII)
_SPECIAL = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null", "nan", "inf"))


def dump(value: Any) -> str:
    """The document, with a line end."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(str(key))}:", item)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _item(item)
    else:
        yield _scalar(value)


def _entry(head: str, item: Any) -> Iterator[str]:
    if isinstance(item, (dict, list)) and item:
        yield head
        yield from (f"  {line}" for line in _lines(item))
    else:
        yield f"{head} {_scalar(item)}"


def _item(item: Any) -> Iterator[str]:
    if isinstance(item, (dict, list)) and item:
        first, *others = _lines(item)
        yield f"- {first}"
        yield from (f"  {line}" for line in others)
    else:
        yield f"- {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    text = str(value)
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    # JSON has escaped what is below U+0020; YAML wants these escaped as well (§5.1), and knows JSON's form of it.
    quoted = json.dumps(text, ensure_ascii=False)
    return _SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
