"""Lines of a Dockerfile as instructions: comments, continued lines, flags and words, read as BuildKit reads them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ketch.errors import InvalidArgument

_ESCAPE_DIRECTIVE = re.compile(r"#[ \t]*escape[ \t]*=[ \t]*(?P<mark>.)[ \t]*\Z", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#[ \t]*[a-z][a-z0-9]*[ \t]*=", re.IGNORECASE)


class Instruction(msgspec.Struct, kw_only=True):
    """One instruction: its name as written, flags without their dashes, and the rest of its line."""

    name: str
    flags: list[str]
    rest: str
    original: str
    escape: str = "\\"

    @property
    def keyword(self) -> str:
        """The name in capitals."""
        return self.name.upper()


def instructions(text: str) -> list[Instruction]:
    """The instructions of a text; InvalidArgument when there is none."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    escape = _escape(lines)
    continued = re.compile(rf"(?:(?<=[^{re.escape(escape)}])|\A){re.escape(escape)}[ \t]*\Z")
    found: list[Instruction] = []
    whole, open_ = "", False
    for line in lines:
        if line.lstrip().startswith("#") or (open_ and not line.strip()):
            continue
        part = line if open_ else line.lstrip()
        shorter = continued.sub("", part)
        whole, open_ = whole + shorter, shorter != part
        if not open_ and whole.strip():
            found.append(_instruction(whole.strip(), escape))
        if not open_:
            whole = ""
    if whole.strip():
        found.append(_instruction(whole.strip(), escape))
    if not found:
        raise InvalidArgument("file with no instructions")
    return found


def _escape(lines: list[str]) -> str:
    """The character that continues lines, from a directive at the beginning, else the backslash."""
    for line in lines:
        if match := _ESCAPE_DIRECTIVE.match(line.strip()):
            if match["mark"] not in "\\`":
                raise InvalidArgument(f"invalid escape token '{match['mark']}' does not match ` or \\")
            return match["mark"]
        if not _DIRECTIVE.match(line.strip()):
            break
    return "\\"


def _instruction(line: str, escape: str) -> Instruction:
    name, *more = line.split(None, 1)
    flags, rest = _flags(more[0]) if more else ([], "")
    return Instruction(name=name, flags=flags, rest=rest.strip(), original=line, escape=escape)


def _flags(text: str) -> tuple[list[str], str]:
    """The flags before an instruction's arguments, and these."""
    flags: list[str] = []
    rest = text.lstrip()
    while rest.startswith("--"):
        word, end = _flag(rest)
        rest = rest[end:].lstrip()
        if word == "--":
            break
        flags.append(word.removeprefix("--"))
    return flags, rest


def _flag(text: str) -> tuple[str, int]:
    """The flag at the beginning of a text without its quotes, and where it ends."""
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        if not quote and char.isspace():
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
    """The value of the JSON form; None for a text that is not JSON (InvalidArgument: a list of other things)."""
    if not text.startswith("["):
        return None
    try:
        found: list[Any] = msgspec.json.decode(text, type=list[Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in found):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return found


def quoted_words(text: str, escape: str) -> list[str]:
    """Words between spaces, with quotes and escapes as they are written: a space within them does not end a word."""
    words: list[str] = []
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        position += 1
        if not quote and char.isspace():
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


def pairs(instruction: Instruction) -> list[tuple[str, str]]:
    """``A=b C="d e"`` or the old ``A value with spaces``, not expanded (InvalidArgument)."""
    words = quoted_words(instruction.rest, instruction.escape)
    if words and "=" not in words[0]:
        parts = instruction.rest.split(None, 1)
        if len(parts) < 2:
            raise InvalidArgument(f"{instruction.keyword} must have two arguments")
        return [(parts[0], parts[1])]
    for word in words:
        if "=" not in word:
            shown = msgspec.json.encode(word).decode()
            raise InvalidArgument(f"Syntax error - can't find = in {shown}. Must be of the form: name=value")
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]
