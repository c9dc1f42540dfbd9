"""Options of the ``fluentd`` log driver, refused in Docker's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from ketch.errors import InvalidArgument
from ketch.notation import booleans, durations, integers, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = frozenset(
    f"fluentd-{name}"
    for name in (
        "address",
        "async",
        "async-reconnect-interval",
        "buffer-limit",
        "max-retries",
        "request-ack",
        "retry-wait",
        "sub-second-precision",
        "write-timeout",
    )
)
_HOST, _PORT = "127.0.0.1", 24224
_MS = 10**6
_MOST_RETRIES = (1 << 31) - 1
_SHORTEST, _LONGEST = 100 * _MS, 10_000 * _MS  # of fluentd-async-reconnect-interval


class FluentdSettings(Struct, frozen=True):
    """``address``: ``tcp`` or ``unix``, host or path, port; numbers as the client library of dockerd takes them."""

    address: tuple[str, str, int]
    background: bool
    buffer: int
    retry_ms: int
    retries: int
    timeout_ms: int
    precise: bool
    acks: bool


def settings(options: Mapping[str, str]) -> FluentdSettings:
    """The settings that options describe (InvalidArgument)."""
    far = _address(options.get("fluentd-address", ""))
    buffer = _size(options.get("fluentd-buffer-limit", ""))
    retry_ns = _duration(options, "fluentd-retry-wait")
    retries = _retries(options.get("fluentd-max-retries", ""))
    background = _boolean(options, "fluentd-async")
    interval = _duration(
        options, "fluentd-async-reconnect-interval", "invalid value for fluentd-async-reconnect-interval: "
    )
    if interval and not _SHORTEST <= interval <= _LONGEST:
        raise InvalidArgument(
            f'invalid value for fluentd-async-reconnect-interval: value ("{durations.write(interval)}")'
            " must be between 100ms and 10s"
        )
    return FluentdSettings(
        address=far,
        background=background,
        buffer=buffer,
        retry_ms=(retry_ns // _MS or 500) if options.get("fluentd-retry-wait") else 1000,
        retries=retries,
        timeout_ms=_write_timeout(options),
        precise=_boolean(options, "fluentd-sub-second-precision"),
        acks=_boolean(options, "fluentd-request-ack"),
    )


def _address(text: str) -> tuple[str, str, int]:
    if not text:
        return "tcp", _HOST, _PORT
    try:
        return _split(text if "://" in text else f"tcp://{text}")
    except ValueError as e:
        raise InvalidArgument(f"invalid fluentd-address ({text}): {e}") from e


def _split(text: str) -> tuple[str, str, int]:
    """The parts of a URL (ValueError says in Docker's words what is wrong)."""
    url = urlsplit(text)
    if url.scheme == "unix":
        if not url.path.strip("/"):
            raise ValueError("path is empty")
        return "unix", url.path, 0
    if url.scheme == "tls":
        raise InvalidArgument("fluentd over TLS is not supported", hint="use tcp:// through a local relay")
    if url.scheme != "tcp":
        raise ValueError(f"unsupported scheme: '{url.scheme}'")
    if url.path:
        raise ValueError("should not contain a path element")
    host, port = _host_and_port(url.netloc.rpartition("@")[2])
    return "tcp", host or _HOST, port


def _host_and_port(text: str) -> tuple[str, int]:
    inner, bracket, after = text.rpartition("]")
    host, _, port = (inner.removeprefix("["), "", after.removeprefix(":")) if bracket else text.partition(":")
    if not port:
        return host, _PORT
    if not (port.isascii() and port.isdecimal()):
        raise ValueError(f'parse "tcp://{text}": invalid port ":{port}" after host')
    try:
        return host, integers.unsigned(port, 16) or _PORT
    except integers.NotAnIntegerError as e:
        raise ValueError(f'invalid port: strconv.ParseUint: parsing "{port}": {e}') from e


def _size(text: str) -> int:
    if not text:
        return 1 << 20
    found = sizes.parse(text)
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return found or 8 << 10


def _duration(options: Mapping[str, str], key: str, before: str = "") -> int:
    text = options.get(key, "")
    found = durations.parse(text) if text else 0
    if found is None:
        no_unit = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text, re.ASCII)
        why = "missing unit in duration" if no_unit else "invalid duration"
        raise InvalidArgument(f'{before}time: {why} "{text}"')
    return found


def _write_timeout(options: Mapping[str, str]) -> int:
    before = "invalid value for fluentd-write-timeout: value must be a duration"
    ns = _duration(options, "fluentd-write-timeout", f"{before}: ")
    if ns < 0:
        raise InvalidArgument(f"{before} that is non-negative")
    return min(-(-ns // _MS), _MOST_RETRIES)


def _retries(text: str) -> int:
    if not text:
        return _MOST_RETRIES
    try:
        number = integers.unsigned(text)
    except integers.NotAnIntegerError as e:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": {e}') from e
    return min(number, _MOST_RETRIES) or 13


def _boolean(options: Mapping[str, str], key: str) -> bool:
    text = options.get(key, "")
    try:
        return booleans.strict(text) if text else False
    except booleans.NotABooleanError as e:
        raise InvalidArgument(str(e)) from e
