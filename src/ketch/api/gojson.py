"""Decoding of JSON bodies by the rules of Go's encoding/json, which Docker's clients rely on.

Names match without regard to case.  Of names that are given twice the last one counts; objects and maps are joined.
A null leaves the default.  Unknown names are ignored.  No type is converted into another; what is not UTF-8 becomes
U+FFFD.
"""

from __future__ import annotations

import json
import re
import types
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from ketch.api.query import check_texts
from ketch.errors import InvalidArgument
from ketch.notation import documents

if TYPE_CHECKING:
    from collections.abc import Callable

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = " \t\r\n"
_PLACES = {  # the words of Python's decoder → those of Go's
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting value": "looking for beginning of value",
    "Expecting ':' delimiter": "after object key",
    "Invalid control character at": "in string",
}
_TRAILING = {
    "}": _PLACES["Expecting property name enclosed in double quotes"],
    "]": _PLACES["Expecting value"],
}
_INT64 = (-(1 << 63), 1 << 63)
_RANGES = {  # types of Go's whole numbers, where they are not int64
    "uint": (0, 1 << 64),
    "uint16": (0, 1 << 16),
    "uint64": (0, 1 << 64),
    "fs.FileMode": (0, 1 << 32),
}
_GO_TYPES = {  # by field, where they are neither int64 nor string
    "BlkioWeight": "uint16",
    "ConsoleSize": "uint",
    "Count": "int",
    "ExposedPorts": "nat.PortSet",
    "PortBindings": "nat.PortMap",
    "GwPriority": "int",
    "Interval": "time.Duration",
    "MaximumRetryCount": "int",
    "OomScoreAdj": "int",
    "Rate": "uint64",
    "Retries": "int",
    "StartInterval": "time.Duration",
    "StartPeriod": "time.Duration",
    "StopTimeout": "int",
    "Timeout": "time.Duration",
    "Weight": "uint16",
    "Mode": "fs.FileMode",
    "NetworkMode": "container.NetworkMode",
    "IpcMode": "container.IpcMode",
    "PidMode": "container.PidMode",
    "UTSMode": "container.UTSMode",
    "UsernsMode": "container.UsernsMode",
    "CgroupnsMode": "container.CgroupnsMode",
    "Isolation": "container.Isolation",
    "Cgroup": "container.CgroupSpec",
}
_TEXT_OR_LIST = ("CapAdd", "CapDrop", "Shell")  # Go's strslice.StrSlice; a text is a list of one
_GO_STRUCTS = {  # by struct, where Go's are not of its package `container` or have other names
    "ContainerConfig": "container.CreateRequest",
    "Credentials": "registry.AuthConfig",
    "NetworkingConfig": "network.NetworkingConfig",
    "PortBinding": "nat.PortBinding",
    "SentPlatform": "v1.Platform",
}


class _Object(list[tuple[str, Any]]):
    """An object of JSON: its names with their values, in their order, some perhaps twice."""


class _Fraction(NamedTuple):
    """A number with a fraction or an exponent, as it was written."""

    text: str


class _Mismatch(Exception):
    """A value of another type than its field's; ``path`` is filled on the way up, the innermost name first."""

    def __init__(self, value: Any, kind: Any, whole: str) -> None:
        super().__init__()
        self.value, self.kind, self.whole = value, kind, whole
        self.path: list[str] = []
        self.in_list = False


def decode(raw: bytes, kind: type[Any], name: str = "") -> Any:
    """The bytes of a body as ``kind``, which Go calls ``name``; InvalidArgument with Go's words."""
    value = _parse(raw.decode(errors="replace"))
    try:
        plain = _read(_Object() if value is None else value, kind)
    except _Mismatch as e:
        raise InvalidArgument(f"invalid JSON: json: cannot unmarshal {_explained(e, name)}") from None
    if b"\\u0000" in raw:
        check_texts(plain)
    return msgspec.convert(plain, kind)


def _refuse_constant(name: str) -> None:
    if name.startswith("-"):
        raise InvalidArgument("invalid JSON: invalid character 'I' in numeric literal")
    raise InvalidArgument(f"invalid JSON: invalid character '{name[0]}' looking for beginning of value")


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_float=_Fraction, parse_constant=_refuse_constant)


def _parse(text: str) -> Any:
    if documents.is_too_deep(text):
        raise InvalidArgument("invalid JSON: it is nested too deeply")
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as e:
        raise InvalidArgument(f"invalid JSON: {_syntax(text, e)}") from e
    except ValueError as e:  # a number of thousands of digits
        raise InvalidArgument(f"invalid JSON: {e}") from e
    rest = text[end:].lstrip(_SPACE)
    if rest and rest[0] not in "]}":  # Go's decoder takes these for the end of something around
        raise InvalidArgument("unexpected content after JSON")
    return value


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    """The mistake of the text, in Go's words."""
    if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 and later; the mistake is what follows it
        rest = text[error.pos + 1 :].lstrip(_SPACE)
        return f"invalid character {_quoted(rest[0])} {_TRAILING[rest[0]]}"
    if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    place, rest = _PLACES.get(error.msg), text[error.pos :]
    if error.msg == "Expecting value":
        for literal in ("true", "false", "null"):
            if rest[0] == literal[0]:
                at = next(i for i, c in enumerate(literal) if rest[i : i + 1] != c)
                if at == len(rest):
                    return "unexpected EOF"
                return f"invalid character {_quoted(rest[at])} in literal {literal} (expecting '{literal[at]}')"
    elif error.msg == "Expecting ',' delimiter":
        place = "after array element" if _inside(text[: error.pos]) == "[" else "after object key:value pair"
    elif error.msg.startswith("Invalid \\escape"):
        return f"invalid escape sequence `{rest[:2]}` in string"
    if place is None:
        return str(error)
    return f"invalid character {_quoted(rest[0])} {place}"


def _inside(text: str) -> str:
    """The bracket that is open where the text ends."""
    opened: list[str] = []
    for bracket in documents.brackets(text):
        if bracket in "[{":
            opened.append(bracket)
        else:
            opened.pop()
    return opened[-1]


def _quoted(character: str) -> str:
    return "'\\''" if character == "'" else "'\"'" if character == '"' else f"'{json.dumps(character)[1:-1]}'"


def _read(value: Any, kind: Any, whole: str = "int64") -> Any:
    """A value in the form that `msgspec.convert` takes for ``kind``; ``whole`` is Go's type of its whole numbers."""
    reader = _readers(kind, whole).get(type(value))
    if reader is None:
        raise _Mismatch(value, kind, whole)
    return reader(value)


@cache
def _readers(kind: Any, whole: str) -> dict[type, Callable[[Any], Any]]:
    """Readers of values of ``kind``, by the type in which they come out of the parser."""
    options = _options(kind)
    readers: dict[type, Callable[[Any], Any]] = {}
    for option in options:
        origin, arguments = get_origin(option) or option, get_args(option)
        if origin is list:
            readers[list] = partial(_list, kind=arguments[0], whole=whole)
        elif origin is dict:
            readers[_Object] = partial(_map, kind=arguments[1])
        elif origin is bool:
            readers[bool] = bool
        elif origin is int:
            readers[int] = partial(_whole, whole=whole)
        elif origin is float:
            readers[int], readers[_Fraction] = float, lambda found: float(found.text)
        elif issubclass(origin, msgspec.Struct):
            readers[_Object] = partial(_struct, kind=origin)
        elif issubclass(origin, str):
            readers[str] = _text
    zero = None if _nullable(kind) else _zero(options[0])
    readers[types.NoneType] = lambda _: zero
    return readers


def _struct(pairs: _Object, kind: type[msgspec.Struct]) -> dict[str, Any]:
    fields, names = _fields(kind)
    given: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for written, item in pairs:
        field = fields.get(written) or fields.get(names.get(_folded(written), ""))
        if field is None or (item is None and not field.nullable):
            continue
        if type(item) is _Object and type(given.get(field.name)) is _Object:
            item = _Object((*given[field.name], *item))
        try:
            found = _read(item, field.kind, field.whole)
            result[field.name] = [found] if field.name in _TEXT_OR_LIST and isinstance(found, str) else found
        except _Mismatch as e:
            if e.path and len(_options(field.kind)) > 1:  # a command: one text, or a list of them
                raise _Mismatch(item, field.kind, field.whole) from None
            e.path.append(written)
            raise
        given[field.name] = item
    return result


def _map(pairs: _Object, kind: Any) -> dict[str, Any]:
    """A map; ``Any`` stands for Go's ``struct{}``, which maps that are sets have."""
    result: dict[str, Any] = {}
    for name, item in pairs:
        try:
            if kind is not Any:
                result[_text(name)] = _read(item, kind)
            elif item is None or type(item) is _Object:
                result[_text(name)] = {}
            else:
                raise _Mismatch(item, kind, "")
        except _Mismatch as e:
            e.path.append(name)
            raise
    return result


def _list(items: list[Any], kind: Any, whole: str) -> list[Any]:
    result: list[Any] = []
    for at, item in enumerate(items):
        try:
            result.append(_read(item, kind, whole))
        except _Mismatch as e:
            e.in_list = e.in_list or not e.path
            e.path.append(str(at))
            raise
    return result


def _whole(number: int, whole: str) -> int:
    low, high = _RANGES.get(whole, _INT64)
    if not low <= number < high:
        raise _Mismatch(_Fraction(str(number)), int, whole)
    return number


def _text(value: str) -> str:
    """A text without halves of surrogate pairs, which JSON can name and UTF-8 cannot."""
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _folded(name: str) -> str:
    """A name without case: as Go folds, where besides the letters of ASCII two others become such ones."""
    return name.replace("\u017f", "s").lower()


class _Field(NamedTuple):
    """A field of a struct; ``whole`` is Go's type of its whole numbers, or of its text."""

    name: str
    kind: Any
    nullable: bool
    whole: str


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[dict[str, _Field], dict[str, str]]:
    """The fields by name, and the names by what is left of them without case."""
    known = {}
    for field in msgspec.structs.fields(kind):
        name, taken = field.encode_name, field.type
        if name in _TEXT_OR_LIST and list[str] in _options(taken):
            taken = list[str] | str | None
        known[name] = _Field(name, taken, _nullable(taken), _GO_TYPES.get(name, "int64"))
    return known, {_folded(name): name for name in known}


def _options(kind: Any) -> tuple[Any, ...]:
    """The types of a union, without that of null."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(option for option in get_args(kind) if option is not types.NoneType)
    return (kind,)


def _nullable(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and types.NoneType in get_args(kind)


def _zero(kind: Any) -> Any:
    """Go's value where nothing was given."""
    origin = get_origin(kind) or kind
    return {} if issubclass(origin, msgspec.Struct) else origin()


def _explained(error: _Mismatch, name: str) -> str:
    """The error's value and type, in Go's words; ``name`` is Go's of the whole."""
    value, options = error.value, _options(error.kind)
    if isinstance(value, _Fraction):
        found = f"number {value.text}" if int in options else "number"
    else:
        found = {bool: "bool", int: "number", str: "string", list: "array"}.get(type(value), "object")
    path = ".".join((name, *(part.replace("~", "~0").replace("/", "~1") for part in reversed(error.path))))
    if len(options) > 1:  # a command: one text, or a list of them
        return f"{found} into Go value of type string"
    where = "Go value" if not error.path else path if error.in_list else f"Go struct field {path}"
    return f"{found} into {where} of type {_go_type(error.kind, error.whole)}"


def _go_type(kind: Any, whole: str) -> str:
    kind = _options(kind)[0]
    origin = get_origin(kind) or kind
    if kind is Any:
        return "struct {}"
    if origin is list and whole == "uint":
        return "[2]uint"  # the size of a console
    if origin is list:
        return "[]" + _go_type(get_args(kind)[0], whole)
    if origin is dict and whole in ("nat.PortSet", "nat.PortMap"):
        return whole
    if origin is dict:
        items = get_args(kind)[1]
        name = _go_type(items, whole)
        return f"map[string]{'*' if _nullable(items) and name.startswith('network.') else ''}{name}"
    if issubclass(origin, msgspec.Struct):
        known = getattr(origin, "GO_TYPE", None) or _GO_STRUCTS.get(origin.__name__)
        return known or f"container.{origin.__name__.replace('Body', 'Request')}"
    if origin is str:
        return whole if whole.startswith("container.") else "string"
    return {bool: "bool", float: "float64"}.get(origin, whole)
