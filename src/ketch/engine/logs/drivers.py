"""Log drivers: the monitor's settings, the attributes of lines, and whether the log can be read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from errno import ENOENT
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from msgspec import Struct

from ketch.engine.logs import fluentd, gelf
from ketch.engine.logs import options as log_options
from ketch.errors import InvalidArgument, KetchError, RuntimeFailure
from ketch.notation import times

if TYPE_CHECKING:
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.protocol import FluentdLog, GelfLog, JournaldLog, LogFiles, LogSettings, RemoteLog, SyslogLog

_DIAL_S = 5.0
_SMALLEST_BUFFER = 64 << 10
_NOT_IN_A_FIELD = re.compile(r"[^A-Z0-9]")


class LogDrivers(Struct, frozen=True, eq=False):
    """Paths and settings of log drivers."""

    paths: ContainerPaths
    journald_socket: str

    def json_path(self, container_id: str) -> str:
        """The path of the ``json-file`` driver's file."""
        return os.path.join(self.paths.directory(container_id), f"{container_id}-json.log")

    def log_path(self, container: Container) -> str:
        """``LogPath`` of an inspect answer (the framed log's only where that is the default driver)."""
        kind = container.host.log_config.type
        if kind == "json-file":
            return self.json_path(container.id)
        return os.path.join(self.paths.log_dir(container.id), "log") if not kind else ""

    async def message(self, container: Container) -> LogSettings:
        """``log`` of the start message; RuntimeFailure or InvalidArgument when the far end cannot be reached."""
        kind, options = container.host.log_config.type or "local", container.host.log_config.config or {}
        if kind == "journald":
            return await self._journald(container, options)
        if kind == "syslog":
            return await self._syslog(container, options)
        if kind == "fluentd":
            return await self._fluentd(container, options)
        if kind == "gelf":
            return await self._gelf(container, options)
        if kind == "json-file":
            chosen = attributes(container)
            return {
                "driver": "json-file",
                **self._files(container, options),
                "path": self.json_path(container.id),
                "compress": log_options.boolean(options.get("compress", ""), "compress"),
                "attrs": json.dumps(chosen, sort_keys=True, separators=(",", ":")) if chosen else "",
            }
        return {"driver": "none" if kind == "none" else "local", **self._files(container, options)}

    def _files(self, container: Container, options: dict[str, str], prefix: str = "") -> LogFiles:
        return {
            "dir": self.paths.log_dir(container.id),
            "max_size": log_options.size(options.get(f"{prefix}max-size", ""), "max-size", log_options.DEFAULT_SIZE),
            "max_files": int(options.get(f"{prefix}max-file") or log_options.DEFAULT_FILES),
        }

    def _remote(self, container: Container, options: dict[str, str]) -> RemoteLog:
        buffer = options.get("max-buffer-size", "")
        return {
            **self._files(container, options, "cache-"),
            "cache": readable(container),
            "blocking": options.get("mode") != "non-blocking",
            "buffer": log_options.size(buffer, "max-buffer-size", log_options.DEFAULT_BUFFER),
        }

    async def _journald(self, container: Container, options: dict[str, str]) -> JournaldLog:
        tag = _tag(container, options.get("tag") or "{{.ID}}")
        fields = {
            "CONTAINER_ID": container.id[:12],
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": container.image_ref,
            "SYSLOG_IDENTIFIER": tag,
        }
        for name, value in attributes(container).items():
            # systemd.journal-fields(7): upper case, digits and underscores, which do not come first.
            if field := _NOT_IN_A_FIELD.sub("_", name.upper()).lstrip("_"):
                fields[field] = value
        await _try("unixgram", self.journald_socket, 0)
        common = self._remote(container, options)
        return {"driver": "journald", **common, "socket": self.journald_socket, "fields": fields}

    async def _syslog(self, container: Container, options: dict[str, str]) -> SyslogLog:
        scheme, host, port = log_options.address(options.get("syslog-address", ""))
        far = await _try(scheme, host, port)
        return {
            "driver": "syslog",
            **self._remote(container, options),
            "address": [scheme, far, port] if port else [scheme, far],
            "facility": log_options.facility(options.get("syslog-facility", "")),
            "format": options.get("syslog-format", ""),
            "tag": _tag(container, options.get("tag") or "{{.ID}}"),
        }

    async def _fluentd(self, container: Container, options: dict[str, str]) -> FluentdLog:
        chosen = fluentd.settings(options)
        common = self._remote(container, options)
        if chosen.background:
            # dockerd counts messages; here it is bytes that are bounded.
            common["blocking"], common["buffer"] = False, max(chosen.buffer, _SMALLEST_BUFFER)
        return {
            "driver": "fluentd",
            **common,
            "address": await _fluentd_address(chosen),
            "tag": _tag(container, options.get("tag") or "{{.ID}}"),
            "fields": {
                "container_id": container.id,
                "container_name": f"/{container.name}",
                **attributes(container),
            },
            "precise": chosen.precise,
            "acks": chosen.acks,
            "timeout_ms": chosen.timeout_ms,
            "retry_ms": chosen.retry_ms,
            "retries": chosen.retries,
        }

    async def _gelf(self, container: Container, options: dict[str, str]) -> GelfLog:
        chosen = gelf.settings(options)
        scheme, host, port = chosen.address
        fields = {
            "_container_id": container.id,
            "_container_name": container.name,
            "_image_id": container.image_id,
            "_image_name": container.image_ref,
            "_command": " ".join([container.path, *container.args]),
            "_tag": _tag(container, options.get("tag") or "{{.ID}}"),
            "_created": times.rfc3339(container.created),
        }
        fields |= {name if name.startswith("_") else f"_{name}": text for name, text in attributes(container).items()}
        far = await _try(scheme, host, port, f"gelf: cannot connect to GELF endpoint: {_where(host, port)} ")
        return {
            "driver": "gelf",
            **self._remote(container, options),
            "address": [scheme, far, port],
            "fields": json.dumps(fields, sort_keys=True, separators=(",", ":"))[1:-1],
            "compression": chosen.compression,
            "level": chosen.level,
            "retry_ms": chosen.delay_s * 1000,
            "retries": chosen.retries if scheme == "tcp" else 0,
        }


def readable(container: Container) -> bool:
    """Whether ``logs`` can read this driver's log."""
    config = container.host.log_config
    if config.type in log_options.REMOTE:
        return not log_options.boolean((config.config or {}).get("cache-disabled", ""), "cache-disabled")
    return config.type != "none"


def attributes(container: Container) -> dict[str, str]:
    """The labels and variables that the options select, and the tag if it is among them."""
    options = container.host.log_config.config or {}
    labels = container.config.labels or {}
    variables = dict(item.split("=", 1) for item in container.config.env or () if "=" in item)
    chosen: dict[str, str] = {}
    for source, option in ((labels, "labels"), (variables, "env")):
        names = options.get(option, "").split(",")
        chosen |= {name: source[name] for name in names if name in source}
        if options.get(f"{option}-regex"):
            pattern = log_options.chooser(options, f"{option}-regex")
            chosen |= {name: value for name, value in source.items() if pattern.fit(name)}
    if container.host.log_config.type in ("", "json-file") and (template := options.get("tag")):
        chosen["tag"] = _tag(container, template)
    return chosen


def details(container: Container) -> str:
    """The prefix of each line of ``logs --details``, with the space after it."""
    chosen = sorted(attributes(container).items())
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in chosen) + " "


def _tag(container: Container, template: str) -> str:
    values = {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageName": container.image_ref,
        "ImageID": container.image_id[:12],
        "ImageFullID": container.image_id,
        "DaemonName": "docker",
    }
    return log_options.tag(template, values)


async def _fluentd_address(chosen: fluentd.FluentdSettings) -> list[str | int]:
    """The address that the monitor connects to; with ``fluentd-async`` nobody need listen there yet."""
    scheme, host, port = chosen.address
    if not chosen.background:
        host = await _try(scheme, host, port)
    elif port:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):  # then messages go to the cache alone
            async with asyncio.timeout(_DIAL_S):
                host = str((await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0][4][0])
    return [scheme, host, port] if port else [scheme, host]


async def _try(scheme: str, host: str, port: int, before: str = "") -> str:
    """Connect once, so that a wrong address fails the start; returns the IP address (or the path)."""
    loop = asyncio.get_running_loop()
    stream = scheme in ("tcp", "unix")
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    where = f" {_where(host, port)}"
    failure: type[KetchError] = RuntimeFailure
    try:
        async with asyncio.timeout(_DIAL_S):
            if not port:
                _try_path(host, kind)
                return host
            family, _, _, _, target = (await loop.getaddrinfo(host, port, type=kind))[0]
            where = f" {_where(str(target[0]), port)}"
            if stream:
                with socket.socket(family, kind) as sock:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, target)
            return str(target[0])
    except TimeoutError:
        why = "i/o timeout"
    except socket.gaierror:
        where, why = "", f"lookup {host}: no such host"
    except OSError as e:
        why = f"connect: {os.strerror(e.errno).lower()}" if e.errno else str(e)
        if e.errno == ENOENT:  # dockerd's status is 400 then, not 500
            failure = InvalidArgument
    raise failure(f"failed to initialize logging driver: {before}dial {scheme}{where}: {why}")


def _where(host: str, port: int) -> str:
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _try_path(path: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:  # it is there, and busy
            return
        except OSError as e:
            if kind != socket.SOCK_STREAM or not e.strerror or "wrong type" not in e.strerror:
                raise
            _try_path(path, socket.SOCK_DGRAM)
