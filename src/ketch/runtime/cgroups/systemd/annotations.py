"""Properties of a scope that a configuration asks for by annotations: ``org.systemd.property.NAME``, as with runc.

A value has GVariant's text form (docs.gtk.org/glib/gvariant-text-format.html): texts in quotes, numbers, of which a
word before says the type, truth values, and lists of these.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.runtime.cgroups.systemd.properties import Properties, Value

PREFIX = "org.systemd.property."
_SECOND_US = 1000000
_DEEPEST = 32
_TYPES = {
    "byte": ("y", 0, 255),
    "int16": ("n", -(1 << 15), (1 << 15) - 1),
    "uint16": ("q", 0, (1 << 16) - 1),
    "int32": ("i", -(1 << 31), (1 << 31) - 1),
    "uint32": ("u", 0, (1 << 32) - 1),
    "int64": ("x", -(1 << 63), (1 << 63) - 1),
    "uint64": ("t", 0, (1 << 64) - 1),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}


def properties(annotations: Mapping[str, str]) -> Properties:
    """The properties that annotations ask for (RuntimeFailure: a name or a value cannot be one)."""
    return [_property(key, text) for key, text in annotations.items() if key.startswith(PREFIX)]


def _property(key: str, text: str) -> tuple[str, Value]:
    name = key.removeprefix(PREFIX)
    if len(name) < 3 or not name.isascii() or not name.isalpha():
        raise _wrong(key, text, "a property's name has three letters or more, and nothing else")
    try:
        value = parse(text)
        if name.endswith("Sec") and name[-4:-3].islower():  # as documented; the interface has microseconds
            return f"{name[:-3]}USec", ("t", _microseconds(value))
    except ValueError as e:
        raise _wrong(key, text, str(e)) from e
    return name, value


def _microseconds(value: Value) -> int:
    signature, number = value
    if signature not in "ynqiuxtd" or not isinstance(number, int | float) or number < 0:
        raise ValueError("not a number of seconds")
    return int(number * _SECOND_US)


def parse(text: str) -> Value:
    """A value's signature, and the value; ValueError: the text is none."""
    if text.count("[") > _DEEPEST:
        raise ValueError("lists that are nested too deep")
    value, rest = _value(text.strip())
    if rest.strip():
        raise ValueError(f"`{rest.strip()}` is left over")
    return value


def _value(text: str) -> tuple[Value, str]:
    """The value at the beginning of a text, and the rest."""
    if text[:1] in ("'", '"'):
        return _quoted(text)
    if text[:1] == "[":
        return _list(text[1:])
    word, rest = _word(text)
    if word in ("true", "false"):
        return ("b", word == "true"), rest
    if word in _TYPES or word == "double":
        number, rest = _word(rest.strip())
        return _typed(word, _number(number)), rest
    plain = _number(word)
    return _typed("double" if isinstance(plain, float) else "int32", plain), rest


def _word(text: str) -> tuple[str, str]:
    end = next((at for at, letter in enumerate(text) if letter in ",] \t"), len(text))
    return text[:end], text[end:]


def _number(word: str) -> int | float:
    digits = word.lstrip("+-")
    try:
        if digits.lower().startswith("0x"):
            return int(word, 16)
        return int(word) if digits.isdigit() else float(word)
    except ValueError:
        raise ValueError(f"`{word}` is no value") from None


def _typed(word: str, number: int | float) -> Value:
    if word == "double":
        return "d", float(number)
    signature, least, most = _TYPES[word]
    if isinstance(number, float) or not least <= number <= most:
        raise ValueError(f"`{number}` is no {word}")
    return signature, number


def _quoted(text: str) -> tuple[Value, str]:
    found, at = [], 1
    while at < len(text) and text[at] != text[0]:
        if text[at] == "\\":
            at += 1
            found.append(_ESCAPES.get(text[at : at + 1], text[at : at + 1]))
        else:
            found.append(text[at])
        at += 1
    if at >= len(text):
        raise ValueError("a text without its second quote")
    return ("s", "".join(found)), text[at + 1 :]


def _list(text: str) -> tuple[Value, str]:
    items: list[Value] = []
    rest = text.strip()
    while not rest.startswith("]"):
        item, rest = _value(rest)
        items.append(item)
        rest = rest.strip()
        if rest.startswith(","):
            rest = rest[1:].strip()
        elif not rest.startswith("]"):
            raise ValueError("a list without its end")
    kinds = {signature for signature, _ in items}
    if len(kinds) != 1:
        raise ValueError("a list of values that are not of one type")
    return (f"a{kinds.pop()}", [value for _, value in items]), rest[1:]


def _wrong(key: str, text: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(f"annotation {key}={text}: {why}", step="cgroups")
