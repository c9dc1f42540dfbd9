"""JSON as Go's encoding/json writes it: what BuildKit's cache keys are digests of.

A structure's fields come in the order of their declaration, without those that have their zero value; bytes are base64,
keys of maps are sorted, and the characters ``<``, ``>``, ``&``, U+2028 and U+2029 are escaped.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from ketch.build.llb import ops_pb2 as pb

_ESCAPED = re.compile("[<>&\u2028\u2029]")


def encoded(value: Any) -> bytes:
    """A value of dicts (in the order of their keys), lists, texts, bytes, numbers and messages of a graph."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _plain(value: Any) -> Any:
    """A value that JSON has no form for, in a form that it has: bytes, messages, and what their fields consist of."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pb.UserOpt):
        return {"User": _user(value)}
    if isinstance(value, Message):
        return {field.name: one for field, one in value.ListFields()}  # by number, as they are declared
    if isinstance(value, Mapping):
        return {key: value[key] for key in sorted(value)}
    return list(value)


def _user(user: pb.UserOpt) -> dict[str, Any]:
    if user.WhichOneof("user") == "byName":
        return {"byName": user.byName}
    return {"byId": user.byID} if user.byID else {}
