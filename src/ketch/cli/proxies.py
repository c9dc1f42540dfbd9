"""Proxies that the docker client's ``config.json`` names: for commands of builds, and for containers.

    {"proxies": {"default": {"httpProxy": "http://…", "noProxy": "…"}, "tcp://far:2375": {…}}}

A daemon's own address comes before ``default``.  Each is given by two names, ``HTTP_PROXY`` and ``http_proxy``; what is
named on the command line counts more.
"""

from __future__ import annotations

import os

from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}


def arguments(given: Mapping[str, str], host: str) -> dict[str, str]:
    """Build arguments, with the proxies for a daemon (InvalidArgument: the file cannot be read)."""
    return {**_known(host), **given}


def environment(given: Sequence[str], host: str) -> list[str]:
    """A container's variables (``NAME=VALUE``, or a name that is to be unset), with the proxies for a daemon."""
    named = {variable.partition("=")[0] for variable in given}
    return [*given, *(f"{name}={value}" for name, value in _known(host).items() if name not in named)]


def _known(host: str) -> dict[str, str]:
    from ketch.client import docker_config

    path = docker_config.path()
    if not os.path.exists(path):
        return {}
    known = docker_config.read().get("proxies") or {}
    entry = _object(known, path).get(host)
    entry = _object(_object(known, path).get("default") if entry is None else entry, path)
    found: dict[str, str] = {}
    for member, name in _NAMES.items():
        if value := entry.get(member):
            if not isinstance(value, str):
                raise InvalidArgument(f"read `{path}`: {member} is no text", hint="mend it")
            found |= {name: value, name.lower(): value}
    return found


def _object(value: object, path: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"read `{path}`: proxies are no objects", hint="mend it")
    return value
