"""Options of the ``gelf`` log driver, refused in Docker's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from ketch.errors import InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = frozenset(
    f"gelf-{name}"
    for name in ("address", "compression-level", "compression-type", "tcp-max-reconnect", "tcp-reconnect-delay")
)
_LARGEST = (1 << 31) - 1


class GelfSettings(Struct, frozen=True):
    """``address``: ``tcp`` or ``udp``, host, port; ``retries``: attempts to connect before a message is dropped."""

    address: tuple[str, str, int]
    compression: str
    level: int
    retries: int
    delay_s: int


def settings(options: Mapping[str, str]) -> GelfSettings:
    """The settings that options describe (InvalidArgument)."""
    far = _address(options.get("gelf-address", ""))
    for key in sorted(options.keys() & OPTIONS - {"gelf-address"}):
        if "compression" in key and far[0] != "udp":
            raise InvalidArgument("compression is only supported on UDP")
        if "tcp" in key and far[0] != "tcp":
            raise InvalidArgument(f'"{key}" is only valid for TCP')
    return GelfSettings(
        address=far,
        compression=_compression(options.get("gelf-compression-type")),
        level=_level(options.get("gelf-compression-level")),
        retries=_number(options, "gelf-tcp-max-reconnect", 3) + 1,
        delay_s=_number(options, "gelf-tcp-reconnect-delay", 1),
    )


def _compression(text: str | None) -> str:
    if text not in (None, "gzip", "zlib", "none"):
        raise InvalidArgument(f'unknown value "{text}" for log opt "gelf-compression-type" for gelf log driver')
    return text or "gzip"


def _level(text: str | None) -> int:
    if text is not None and not re.fullmatch(r"-0*[01]|[+-]?0+|\+?0*[0-9]", text, re.ASCII):
        raise InvalidArgument(f'unknown value "{text}" for log opt "gelf-compression-level" for gelf log driver')
    return 1 if text is None else int(text)


def _number(options: Mapping[str, str], key: str, default: int) -> int:
    if key not in options:
        return default
    number = digits.whole(options[key].removeprefix("+"))
    if number is None:
        raise InvalidArgument(f'"{key}" must be a positive integer')
    return min(number, _LARGEST)


def _address(text: str) -> tuple[str, str, int]:
    if not text:
        raise InvalidArgument("gelf-address is a required parameter")
    if re.match(r"[^A-Za-z/?#:][^/?#]*:", text):
        raise InvalidArgument(f'parse "{text}": first path segment in URL cannot contain colon')
    try:
        url = urlsplit(text)
    except ValueError as e:
        raise InvalidArgument(f"gelf-address should be in form proto://address, got {text}: {e}") from e
    if url.scheme not in ("tcp", "udp"):
        raise InvalidArgument("gelf: endpoint needs to be TCP or UDP")
    host, colon, port = url.netloc.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and port.strip("0123456789") and "]" not in port:
        raise InvalidArgument(f'parse "{text}": invalid port ":{port}" after host')
    number = digits.whole(port, 65535)
    if not colon or not number or (":" in host and not bracketed):
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    return url.scheme, host.strip("[]") or "127.0.0.1", number
