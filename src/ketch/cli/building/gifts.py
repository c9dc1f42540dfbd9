"""Things that the client gives to a build's steps: secrets, SSH agents, and further contexts."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from ketch.cli.building import places, values
from ketch.cli.errors import UsageError
from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from typing import Any

_LARGEST_SECRET = 500 << 10
_REFERENCE = "org.opencontainers.image.ref.name"


def secrets(items: list[str]) -> dict[str, bytes]:
    """``--secret id=NAME[,src=FILE|,env=VARIABLE]`` → contents by name (UsageError, InvalidArgument)."""
    found = {}
    for item in items:
        given = values.fields(item, "secret")
        unknown = set(given) - {"id", "type", "src", "source", "env"}
        if unknown:
            raise UsageError(f"invalid --secret `{item}`: unexpected `{min(unknown)}`", hint="known: id src env type")
        kind, name = given.get("type", ""), given.get("id", "")
        if kind not in ("", "file", "env"):
            raise UsageError(f"invalid --secret `{item}`: unsupported secret type `{kind}`", hint="use file or env")
        path, variable = given.get("src") or given.get("source") or "", given.get("env", "")
        if kind == "env" and not variable:
            path, variable = "", path or name
        if not name:
            raise UsageError(f"invalid --secret `{item}`: id is required")
        if not path and not variable:
            path, variable = ("", name) if name in os.environ and kind != "file" else (name, "")
        found[name] = _secret_of_variable(name, variable) if variable else _secret_of_file(name, path)
    return found


def _secret_of_variable(name: str, variable: str) -> bytes:
    value = os.environb.get(os.fsencode(variable))
    if value is None:
        raise NotFound(f"secret `{name}`: the environment has no variable `{variable}`")
    return value


def _secret_of_file(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            content = f.read(_LARGEST_SECRET + 1)
    except OSError as e:
        raise InvalidArgument(f"secret `{name}`: open {path}: {e.strerror}") from e
    if len(content) > _LARGEST_SECRET:
        raise InvalidArgument(f"secret `{name}`: {path} is larger than 500 KiB")
    return content


def agents(items: list[str]) -> dict[str, str]:
    """``--ssh ID[=SOCKET]`` → paths of agents' sockets by name (UsageError, NotFound)."""
    found = {}
    for item in items:
        name, _, path = item.partition("=")
        name = name or "default"
        if not path:
            path = os.environ.get("SSH_AUTH_SOCK", "")
            if not path:
                raise NotFound(
                    f"--ssh {item}: SSH_AUTH_SOCK is not set, so there is no agent",
                    hint="start one with: eval $(ssh-agent); ssh-add",
                )
        if "," in path or not _is_socket(path):
            raise UsageError(
                f"--ssh {item}: `{path}` is no agent's socket",
                hint="load the key into an agent (ssh-add) and give its socket",
            )
        found[name] = path
    return found


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as e:
        raise NotFound(f"--ssh: open {path}: {e.strerror}") from e


class NamedContexts(NamedTuple):
    """Further contexts: addresses by name, and the directories of those that are local."""

    addresses: dict[str, str]
    directories: dict[str, str]


def contexts(items: list[str]) -> NamedContexts:
    """``--build-context NAME=VALUE`` (UsageError, NotFound)."""
    addresses: dict[str, str] = {}
    directories: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"invalid --build-context `{item}`", hint="write NAME=VALUE")
        name = name.lower().removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
        if value.startswith("docker-image://") or places.is_remote(value):
            addresses[name] = value
        elif value.startswith("oci-layout://"):
            path, digest = _layout(value.removeprefix("oci-layout://"))
            addresses[name], directories[f"{name}.layout"] = f"oci-layout://{name}.layout@{digest}", path
        elif not os.path.isdir(value):
            raise NotFound(f"--build-context {item}: no directory `{value}`")
        else:
            addresses[name], directories[name] = f"local:{name}", value
    return NamedContexts(addresses, directories)


def _layout(text: str) -> tuple[str, str]:
    """``PATH[:TAG][@DIGEST]`` → the layout's directory and the manifest's digest."""
    place, _, digest = text.partition("@")
    head, colon, tag = place.rpartition(":")
    path, tag = (head, tag) if colon and "/" not in tag else (place, "")
    if digest:
        return path, digest
    try:
        with open(os.path.join(path, "index.json"), encoding="utf-8") as f:
            index = json.load(f)
        manifests: list[dict[str, Any]] = list(index["manifests"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InvalidArgument(f"oci-layout `{path}`: its index.json cannot be read: {e}") from e
    named = [m for m in manifests if (m.get("annotations") or {}).get(_REFERENCE) == (tag or "latest")]
    chosen = named or ([] if tag else manifests)
    if len(chosen) != 1:
        raise NotFound(f"oci-layout `{path}`: no single image for `{tag or 'latest'}`", hint="add @DIGEST")
    return path, str(chosen[0]["digest"])
