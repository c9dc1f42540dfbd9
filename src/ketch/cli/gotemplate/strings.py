"""Strings as Go's clients print them: quoted, or cut to a width."""

from __future__ import annotations

from ketch import printable
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_NAMED |= {"\\": "\\\\", '"': '\\"'}


def quote(text: str) -> str:
    """A string in double quotes with Go's escapes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def ellipsis(text: str, width: int) -> str:
    """Cut a text that is wider than ``width`` cells, the last one is then "…" (wide characters take two)."""
    if len(text) <= width and text.isascii():
        return text
    if text.isascii():
        return text[: width - 1] + "…"
    cells = [(char, _cells(char)) for char in text]
    if sum(n for _, n in cells) <= width:
        return text
    kept, used = [], 0
    for char, n in cells:
        if used + n > width - 1:
            break
        kept.append(char)
        used += n
    return "".join(kept) + "…"


def _cells(char: str) -> int:
    import unicodedata

    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts ``web9`` before ``web10``."""
    key: list[tuple[int, int, str]] = []
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or text[at].isdecimal() != text[at - 1].isdecimal():
            word = text[start:at]
            number = word.lstrip("0")  # compared digit by digit: it may be of any length
            key.append((0, len(number), number + word) if word.isdecimal() else (1, 0, word))
            start = at
    return key


def go_json(value: Any) -> str:
    """One line of JSON with Go's escapes: no HTML markup, no control characters."""
    text = printable.json_text(documents.dumps(value, spaces=False, ascii=False))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
