"""Log drivers and their options: checks, with Docker's words for what is refused, and the daemon's defaults.

    type ""      the default: framed files, shown as json-file because docker-py reads no other's logs
    local        the same, by its name         json-file   Docker's own files
    journald, syslog, fluentd, gelf   messages elsewhere, and framed files as a cache      none   nothing

The daemon's defaults are written into a container when it is made, so that later changes do not touch it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.engine.logs import fluentd, gelf
from ketch.errors import InvalidArgument
from ketch.expressions import Expressions
from ketch.notation import booleans, digits, sizes
from ketch.runtime.logs.syslog import FACILITIES, FORMATS

if TYPE_CHECKING:
    from ketch.engine.model.records import LogConfig

DEFAULT_SIZE, DEFAULT_FILES, DEFAULT_BUFFER = 20 << 20, 5, 1 << 20
_CHOICE = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_FILES = frozenset(("max-size", "max-file", "compress"))
_SYSLOG_TLS = frozenset(("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"))
_BUILT_IN = frozenset(
    ("mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
)
OPTIONS = {
    "": _FILES | _CHOICE,
    "json-file": _FILES | _CHOICE,
    "local": _FILES,
    "journald": _CHOICE,
    "syslog": _CHOICE | _SYSLOG_TLS | {"syslog-address", "syslog-facility", "syslog-format"},
    "fluentd": _CHOICE | fluentd.OPTIONS,
    "gelf": _CHOICE | gelf.OPTIONS,
}
REMOTE = ("journald", "syslog", "fluentd", "gelf")
DRIVERS = sorted({*OPTIONS, "none"} - {""})
_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}")
TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName")


def apply_defaults(config: LogConfig, default: LogConfig) -> None:
    """Fill in the daemon's defaults where ``config`` has no value, as dockerd does at creation."""
    config.type = config.type or default.type
    options = dict(config.config or {})
    for key, value in (default.config or {}).items():
        if config.type == default.type or key.startswith("cache-"):
            options.setdefault(key, value)
    config.config = options


def check(config: LogConfig) -> None:
    """Refuse an unknown driver, an unknown option, or a value that makes no sense (InvalidArgument)."""
    options = config.config or {}
    if config.type == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        size(options["max-buffer-size"], "max-buffer-size", 0)
    if config.type not in OPTIONS:
        raise InvalidArgument(
            f'error looking up logging plugin {config.type}: plugin "{config.type}" not found',
            hint=f"use one of {', '.join(DRIVERS)}",
        )
    for key in options.keys() - OPTIONS[config.type] - _BUILT_IN:
        raise InvalidArgument(_unknown(config.type, key))
    _check_values(config.type, options)


def _unknown(driver: str, key: str) -> str:
    if driver == "local":
        return f"unknown log opt '{key}' for log driver local"
    if driver == "gelf":
        return f'unknown log opt "{key}" for gelf log driver'
    return f"unknown log opt '{key}' for {driver or 'json-file'} log driver"


def _check_values(driver: str, options: dict[str, str]) -> None:
    for key in ("max-size", "cache-max-size"):
        size(options.get(key, ""), key, 0)
    for key in ("max-file", "cache-max-file"):
        value = options.get(key, "1")
        if not digits.whole(value):
            raise InvalidArgument(f"{key} cannot be less than 1: '{value}'")
    for key in ("compress", "cache-compress", "cache-disabled"):
        boolean(options.get(key, ""), key)
    rotates = int(options.get("max-file") or DEFAULT_FILES) > 1 and options.get("max-size") != "-1"
    if driver == "json-file" and boolean(options.get("compress", ""), "compress") and not rotates:
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    for key in ("labels-regex", "env-regex"):
        chooser(options, key)
    tag(options.get("tag", ""), dict.fromkeys(TAG_FIELDS, ""))
    if driver == "fluentd":
        fluentd.settings(options)
    if driver == "gelf":
        gelf.settings(options)
    if driver == "syslog":
        if any(key in _SYSLOG_TLS for key in options):
            raise InvalidArgument("syslog over TLS is not supported", hint="use tcp:// through a local relay")
        address(options.get("syslog-address", ""))
        facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in FORMATS:
            raise InvalidArgument("Invalid syslog format")


def chooser(options: dict[str, str], key: str) -> Expressions:
    """The matcher of ``labels-regex`` or ``env-regex``; an empty expression matches everything."""
    text = options.get(key, "")
    try:
        return Expressions([text])
    except ValueError as e:
        raise InvalidArgument(f"log option {key}: {e}", hint="it is a regular expression as Go has them") from e


def size(text: str, option: str, default: int) -> int:
    """``10m``, ``512k``, ``1g`` or bytes → bytes; ``-1`` is unlimited (0).

    A file's size is in powers of 1000 and the buffer's in powers of 1024: so dockerd reads them.
    """
    if not text:
        return default
    of_file = option.endswith("max-size")
    if text == "-1" and of_file:
        return 0
    found = sizes.parse(text, 1000 if of_file else 1024)
    if not found:
        raise InvalidArgument(f"log option {option}: `{text}` is not a size", hint="use e.g. 10m")
    return found


def boolean(text: str, option: str) -> bool:
    """A truth value as Go writes it; an empty text is false."""
    found = booleans.parse(text) if text else False
    if found is None:
        raise InvalidArgument(f"invalid value for option {option}: {text}", hint="use true or false")
    return found


def tag(template: str, values: dict[str, str]) -> str:
    """A tag template with its fields filled in; of Go's templates only ``{{.Field}}`` is understood."""

    def fill(match: re.Match[str]) -> str:
        name = match[1].removeprefix(".")
        if name not in values or name == match[1]:
            raise InvalidArgument(
                f"log option tag: `{match[0]}` is not known",
                hint=f"use {', '.join(f'{{{{.{name}}}}}' for name in TAG_FIELDS)}",
            )
        return values[name]

    return _FIELD.sub(fill, template)


def facility(text: str) -> int:
    """``local0`` or a number → the number; an empty text is ``daemon``."""
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES:
        return FACILITIES.index(text)
    number = digits.whole(text, len(FACILITIES) - 1)
    if number is not None:
        return number
    raise InvalidArgument("invalid syslog facility")


def address(text: str) -> tuple[str, str, int]:
    """(``unix``, ``unixgram``, ``tcp`` or ``udp``; path or host; port); nothing is /dev/log."""
    if not text:
        return "unixgram", "/dev/log", 0
    scheme, separator, rest = text.partition("://")
    if scheme == "tcp+tls":
        raise InvalidArgument("syslog over TLS is not supported", hint="use tcp:// through a local relay")
    if not separator or scheme not in ("unix", "unixgram", "tcp", "udp"):
        raise InvalidArgument(
            f"unsupported scheme: '{scheme if separator else ''}'",
            hint=f"syslog-address is like udp://HOST:PORT or unix://PATH, and not {text}",
        )
    if scheme.startswith("unix"):
        return scheme, rest, 0
    host, colon, port = rest.rpartition(":")
    if not colon or host.count("[") != host.count("]"):
        host, port = rest, "514"
    number = digits.whole(port, 65535)
    if not host or not number:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    return scheme, host.strip("[]"), number
