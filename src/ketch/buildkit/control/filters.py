"""Filters of lists, in containerd's language: ``id==abc,inuse``, ``type!=regular``, ``labels."a.b"~=^x``.

A filter's parts must all be so; of several filters one is enough; without any, all is wanted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch import expressions
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Filter = Callable[[Mapping[str, str]], bool]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PATH = re.compile(rf"(?:[A-Za-z_][\w-]*|{_QUOTED})(?:\.(?:[A-Za-z_][\w-]*|{_QUOTED}))*", re.ASCII)
_OPERATOR = re.compile(r"==|!=|~=")
_VALUE = re.compile(rf"{_QUOTED}|[^,\"|/]*")
_ESCAPE = re.compile(r"\\(.)")
_MOST, _LONGEST = 100, 4096  # filters, and characters of one: they are tried on each row, in the event loop


def parse(texts: Sequence[str], what: str) -> Filter:
    """Whether something with these fields is wanted (RpcError with where the mistake is)."""
    check(texts, what)
    found = [_filter(text, f"failed to parse {what} filters [{' '.join(texts)}]") for text in texts]
    return lambda fields: not found or any(one(fields) for one in found)


def check(texts: Sequence[str], what: str) -> None:
    """Refuse filters that would take long (RpcError)."""
    if len(texts) > _MOST or any(len(text) > _LONGEST for text in texts):
        why = f"there may be {_MOST}, of {_LONGEST} characters each"
        raise RpcError(Code.INVALID_ARGUMENT, f"failed to parse {what} filters: {why}")


def _filter(text: str, what: str) -> Filter:
    parts: list[Filter] = []
    at = 0
    while at < len(text):
        path = _PATH.match(text, at)
        if path is None:
            raise _error(text, at, what, "expected a field")
        at = path.end()
        name = ".".join(_unquoted(piece) for piece in re.findall(rf"{_QUOTED}|[^.]+", path[0]))
        operator = _OPERATOR.match(text, at)
        if operator is None:
            if at < len(text) and text[at] != ",":
                raise _error(text, at, what, 'expected an operator ("=="|"!="|"~=")')
            parts.append(_has(name))
        else:
            value = _VALUE.match(text, operator.end())
            assert value is not None  # it may be empty
            at = value.end()
            parts.append(_compares(name, operator[0], _unquoted(value[0]), what))
        if at < len(text):
            if text[at] != ",":
                raise _error(text, at, what, 'expected a separator (",")')
            at += 1
    return lambda fields: all(part(fields) for part in parts)


def _has(name: str) -> Filter:
    return lambda fields: name in fields


def _compares(name: str, operator: str, value: str, what: str) -> Filter:
    if operator == "==":
        return lambda fields: name in fields and fields[name] == value
    if operator == "!=":
        return lambda fields: fields.get(name) != value
    try:
        pattern = expressions.compiled(value)
    except ValueError as e:
        raise RpcError(Code.INVALID_ARGUMENT, f"{what}: `{value}` is no regular expression: {e}") from e
    return lambda fields: name in fields and pattern.search(fields[name]) is not None


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(r"\1", text[1:-1]) if text[:1] == '"' else text


def _error(text: str, at: int, what: str, why: str) -> RpcError:
    return RpcError(
        Code.INVALID_ARGUMENT,
        f"{what}: filters: parse error: [{text[:at]} >|{text[at : at + 1]}|< {text[at + 1 :]}]: {why}",
    )
