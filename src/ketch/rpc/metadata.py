"""Headers of calls: metadata of applications, and what gRPC itself sends in them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.rpc.frames import H2Error, StreamFailure
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Metadata = Mapping[str, Sequence[str]]
    Headers = list[tuple[str, str]]

CONTENT_TYPE = "application/grpc"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_RESERVED = ("te", "content-type", "user-agent")


def encode_binary(value: bytes) -> str:
    """Bytes as the value of a key that ends in ``-bin``."""
    return base64.b64encode(value).decode("ascii").rstrip("=")


def decode_binary(text: str) -> bytes:
    """The bytes of such a value (RpcError when it is none)."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as e:
        raise RpcError(Code.INTERNAL, f"binary metadata is not base64: {text[:40]!r}") from e


def checked(metadata: Metadata) -> Headers:
    """Metadata as headers; InvalidArgument for what cannot be sent, or is gRPC's own."""
    headers = []
    for key, values in metadata.items():
        if not _KEY.fullmatch(key) or key.startswith("grpc-") or key in _RESERVED:
            raise InvalidArgument(f"metadata cannot have the key {key!r}")
        for value in values:
            if not _VALUE.fullmatch(value):
                raise InvalidArgument(f"metadata `{key}` cannot have the value {value[:40]!r}: it is not ASCII")
            headers.append((key, value))
    return headers


def as_metadata(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers by their keys, without HTTP's own; values of ``-bin`` keys may have come together."""
    metadata: dict[str, list[str]] = {}
    for key, value in headers:
        if key[0] != ":":
            values = value.split(",") if key.endswith("-bin") else [value]
            metadata.setdefault(key, []).extend(values)
    return metadata


def text_headers(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers as they came, as text; pseudo-headers first, names in lower case, or the stream is malformed."""
    headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in raw]
    behind = False
    for key, _ in headers:
        pseudo = key[:1] == ":"
        if not key or key != key.lower() or (pseudo and behind) or key in ("connection", "transfer-encoding"):
            raise StreamFailure(H2Error.PROTOCOL_ERROR, f"malformed header {key[:40]!r}")
        behind = not pseudo
    return headers


def encode_timeout(seconds: float) -> str:
    """A call's time as ``grpc-timeout``: at most eight digits."""
    for unit, factor in (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0)):
        if seconds * factor < 1e8:
            return f"{max(int(seconds * factor), 0)}{unit}"
    return "99999999S"


def decode_timeout(text: str) -> float:
    """Seconds of a ``grpc-timeout``."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise RpcError(Code.INTERNAL, f"malformed grpc-timeout: {text[:40]!r}")
    return int(match[1]) * _UNITS[match[2]]
