"""An instruction's line: its name, flags, and arguments, cut as BuildKit cuts them.

Nothing is expanded here, and quotes stay as they are written.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ketch.build.dockerfile.errors import DockerfileError
from ketch.dockerignore import SPACES

_BLANKS = re.compile(r"[\t\v\f\r ]+")


def split_line(line: str) -> tuple[str, list[str], str]:
    """An instruction's name as written, its flags with their dashes, and what follows them."""
    name, *more = _BLANKS.split(line.strip(SPACES), maxsplit=1)
    flags, rest = _flags(more[0]) if more else ([], "")
    return name, flags, rest.strip(SPACES)


def quoted(text: str) -> str:
    """A text in quotes, as messages have it."""
    return msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()


def blank_separated(text: str) -> list[str]:
    """Words between blanks, whatever is quoted."""
    return _BLANKS.split(text) if text else []


def _flags(text: str) -> tuple[list[str], str]:
    """The flags before an instruction's arguments, and these."""
    flags: list[str] = []
    rest = text.lstrip(SPACES)
    while rest.startswith("--"):
        word, end = _flag(rest)
        rest = rest[end:].lstrip(SPACES)
        if word == "--":
            break
        flags.append(word)
    return flags, rest


def _flag(text: str) -> tuple[str, int]:
    """The flag at the beginning of a text without its quotes, and where it ends."""
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        if not quote and char in SPACES:
            break
        position += 1
        if char == "\\":
            word += text[position : position + 1]
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            word += char
    return word, position


def json_list(text: str) -> list[str] | None:
    """The value of the JSON form; None for a text that is not JSON (DockerfileError: a list of other things)."""
    if not text.startswith("["):
        return None
    try:
        found: list[Any] = msgspec.json.decode(text, type=list[Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in found):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return found


def quoted_words(text: str, escape: str) -> list[str]:
    """Words between spaces, with quotes and escapes as they are written: a space within them does not end a word."""
    words: list[str] = []
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        position += 1
        if not quote and char in SPACES:
            words += [word] if word else []
            word = ""
            continue
        if char == escape and quote != "'":
            if position == len(text):  # an escape that escapes nothing
                break
            char += text[position]
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        word += char
    return [*words, word] if word else words


def pairs(text: str, keyword: str, escape: str) -> tuple[list[str], bool]:
    """``A=b C="d e"`` as keys and values in turn, and whether it was the old form, ``A value with spaces``."""
    words = quoted_words(text, escape)
    if words and "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) < 2:
            raise DockerfileError(f"{keyword} must have two arguments")
        return parts, True
    for word in words:
        if "=" not in word:
            raise DockerfileError(
                f"Syntax error - can't find = in {quoted(word)}. Must be of the form: name=value", word=word
            )
    return [part for word in words for part in word.split("=", 1)], False
