"""A build as it is asked for: everything that a command line says, read and checked."""

from __future__ import annotations

import binascii
import os

from ketch.cli import credentials, proxies
from ketch.cli.building import gifts, outputs, places, values
from ketch.cli.errors import UsageError
from ketch.cli.options import checks, quantities
from ketch.cli.options.value_types import EXTRA_HOSTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.options.flags import Options

    Request = dict[str, Any]

_HUB = "docker.io"


class BuildRequest:
    """One build."""

    def __init__(self, opts: Options, context: str, host: str) -> None:
        """``host``: the daemon's address.  KetchError for what cannot be asked for."""
        self.opts = opts
        self.arguments = proxies.arguments(values.pairs(opts["build-arg"], "build-arg", inherit=True), host)
        self.method, self.as_json = values.call(opts)
        self.outputs = outputs.parse(opts) if self.method == "build" else []
        images = all(output.kind == "image" or not output.comes_here for output in self.outputs)
        self.attestations = values.attestations(opts, by_default=images and self.method == "build")
        if self.attestations and any(one.kind == "docker" and one.comes_here for one in self.outputs):
            raise UsageError(
                "docker exporter does not support exporting manifest lists, use the oci exporter instead",
                hint="attestations are part of such a list",
            )
        self.secrets = gifts.secrets(opts["secret"])
        self.agents = gifts.agents(opts["ssh"])
        self.contexts = gifts.contexts(opts["build-context"])
        self.cache_from = values.caches(opts["cache-from"], "cache-from")
        self.cache_to = values.caches(opts["cache-to"], "cache-to")
        self.limits = _limits(opts)
        self.place = places.find(context, opts["file"])

    def fields(self) -> Request:
        """All that goes into the request and is neither a directory nor a descriptor."""
        opts, text = self.opts, self.place.dockerfile
        return {
            "t": opts["tag"],
            "target": opts["target"],
            "platforms": platforms(opts),
            "buildargs": self.arguments,
            "labels": values.pairs(opts["label"], "label"),
            "nocache": opts["no-cache"],
            "nocachefilter": values.listed(opts["no-cache-filter"]),
            "pull": opts["pull"],
            "networkmode": opts["network"],
            "extrahosts": hosts(opts),
            "entitlements": values.listed(opts["allow"]),
            "call": self.method,
            "explain": opts["explain"],
            "keepfailed": opts["shell-on-failure"],
            "attests": self.attestations,
            "dockerfile": text and _dockerfile(text),
            "dockerfile_path": self.place.dockerfile_path,
            "remote": self.place.remote,
            "name": build_name(self.place, opts["target"]),
            "context": context_of(self.place),
            "contexts": self.contexts.addresses,
            "secrets": {name: encoded(content) for name, content in self.secrets.items()},
            "auths": {_HUB if name == credentials.HUB else name: auth for name, auth in credentials.known().items()},
            **self.limits,
        }


def context_of(place: places.BuildPlace) -> str:
    """The context's address; ``-`` for standard input."""
    return place.remote or (os.path.abspath(place.directory) if place.directory else "-")


def build_name(place: places.BuildPlace, target: str) -> str:
    """A build's name in the history, as buildx has it: of context, Dockerfile and target."""
    name = os.path.basename(context_of(place).partition("#")[0].rstrip("/")) or "/"
    file = place.dockerfile.name if place.dockerfile else place.dockerfile_path
    return name + (f"/{file}" if file != "Dockerfile" else "") + (f" ({target})" if target else "")


def encoded(content: bytes) -> str:
    """Bytes in JSON."""
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def _dockerfile(text: places.DockerfileText) -> Request:
    return {
        "name": text.name,
        "data": encoded(text.content),
        "ignore": None if text.ignore is None else encoded(text.ignore),
        "ignore_name": text.ignore_name,
    }


def platforms(opts: Options) -> list[str]:
    """The platforms; without any, that of DOCKER_DEFAULT_PLATFORM, or none: the daemon's own."""
    default = os.environ.get("DOCKER_DEFAULT_PLATFORM")
    return values.listed(opts["platform"]) or ([default] if default else [])


def hosts(opts: Options) -> list[str]:
    """Names with their addresses."""
    return list(EXTRA_HOSTS.read(values.listed(opts["add-host"]), "add-host"))


def _limits(opts: Options) -> Request:
    """Limits of the steps' processes; those that were not given are left out."""
    found: Request = {
        "cgroupparent": opts["cgroup-parent"],
        "cpushares": opts["cpu-shares"],
        "cpuperiod": opts["cpu-period"],
        "cpuquota": opts["cpu-quota"],
        "cpusetcpus": opts["cpuset-cpus"],
        "cpusetmems": opts["cpuset-mems"],
        "ulimits": [checks.ulimit(text) for text in opts["ulimit"]],
    }
    for flag, name in (("shm-size", "shmsize"), ("memory", "memory"), ("memory-swap", "memswap")):
        if opts[flag]:
            any_swap = flag == "memory-swap" and opts[flag] == "-1"
            found[name] = -1 if any_swap else quantities.size(opts[flag], f"--{flag}")
    if found.get("memswap", -1) > 0 and not found.get("memory"):
        raise UsageError("--memory-swap needs --memory", hint="it is the sum of both")
    return {name: value for name, value in found.items() if value}
