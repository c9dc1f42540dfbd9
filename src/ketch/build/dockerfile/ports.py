"""Ports as EXPOSE names them."""

from __future__ import annotations

import re

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.errors import InvalidArgument

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z", re.ASCII)


def exposed(spec: str) -> list[str]:
    """``[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`` → ``PORT/PROTOCOL``, of which an image keeps nothing else."""
    where, _, text = spec.rpartition(":")
    port, _, protocol = text.partition("/")
    protocol = protocol.partition("/")[0].lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    if not port:
        raise InvalidArgument(f"No port specified: {spec}<empty>")
    inside = _range(port)
    if inside is None:
        raise InvalidArgument(f"Invalid containerPort: {port}")
    host = where.rpartition(":")[2]
    if host:
        outside = _range(host)
        if outside is None:
            raise InvalidArgument(f"Invalid hostPort: {host}")
        if len(inside) not in (1, len(outside)):
            raise InvalidArgument(f"Invalid ranges specified for container and host Ports: {port} and {host}")
    return [f"{number}/{protocol}" for number in inside]


def exposed_in_file(spec: str) -> list[str]:
    """The same, with a Dockerfile's errors (DockerfileError)."""
    try:
        return exposed(spec)
    except InvalidArgument as e:
        why = e.message[:1].lower() + e.message[1:]
        why = f"invalid port: {quoted(spec)}: {why}" if why.startswith("invalid proto") else why
        raise DockerfileError(why, word=spec) from e


def _range(text: str) -> range | None:
    match = _PORTS.match(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    return range(first, last + 1) if first <= last < 65536 else None
