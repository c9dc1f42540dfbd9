"""Untrusted text (of containers, images, registries) made safe for a terminal: no control sequences.

A terminal obeys what is printed on it: escape sequences move the cursor, change titles, write the clipboard (OSC 52)
and can make it answer as if somebody had typed; the C1 controls (U+0080–U+009F) begin them with one character.
Bidirectional controls show a text in another order than it has.  Each such character is shown as ``?``, as ps(1) and
ls(1) do.  JSON keeps what it means: there it is escaped.

Imports nothing before a text has such a character.
"""

from __future__ import annotations

_CONTROL = "\x00-\x1f\x7f-\x9f"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_OTHERS = "\u2028\u2029\ud800-\udfff"  # separators of lines, and halves of characters: bytes that are not UTF-8
_CELL = f"[{_CONTROL}{_BIDI}{_OTHERS}]"
_TEXT = rf"(?![\n\t]){_CELL}"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from re import Match


def cell(text: str) -> str:
    """One field of a table or one line: no ends of lines, no tabs."""
    return text if text.isprintable() else _replaced(_CELL, "?", text)


def lines(text: str) -> str:
    """Several lines, with tabs."""
    return text if _is_plain(text) else _replaced(_TEXT, "?", text)


def json_text(text: str) -> str:
    """JSON (RFC 8259 §7) whose strings have control characters escaped."""
    return text if _is_plain(text) else _replaced(_TEXT, lambda match: f"\\u{ord(match[0]):04x}", text)


def _is_plain(text: str) -> bool:
    """Whether it has no such character for sure: `str.isprintable` knows more of them."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def _replaced(pattern: str, by: str | Callable[[Match[str]], str], text: str) -> str:
    import re  # here: few texts have such characters, and each start of a command would pay for it

    return re.sub(pattern, by, text)
