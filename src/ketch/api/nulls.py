"""``null`` in requests: clients in Go send it for a field that is not set, whatever the field's type."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

import msgspec


def decode(raw: bytes, kind: type[Any]) -> Any:
    """Bytes as ``kind``; a null where the type has none leaves the field at its default (encoding/json of Go).

    Raises what `msgspec.json.decode` raises.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as e:
        if "got `null`" not in str(e):
            raise
    return msgspec.convert(without(msgspec.json.decode(raw), kind), kind)


def without(value: Any, kind: Any) -> Any:
    """``value`` with those nulls left out that ``kind`` does not accept; in a map of texts they are empty texts."""
    for option in _options(kind):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(value, dict) and isinstance(option, type) and issubclass(option, msgspec.Struct):
            known = {f.encode_name: f.type for f in msgspec.structs.fields(option)}
            return {
                name: without(v, known[name])
                for name, v in value.items()
                if name in known and (v is not None or _nullable(known[name]))
            }
        if isinstance(value, dict) and origin is dict:
            return {
                name: "" if v is None and arguments[1] is str else without(v, arguments[1]) for name, v in value.items()
            }
        if isinstance(value, list) and origin is list:
            return [without(v, arguments[0]) for v in value]
    return value


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _nullable(kind: Any) -> bool:
    return kind is Any or any(option in (None, types.NoneType) for option in _options(kind))
