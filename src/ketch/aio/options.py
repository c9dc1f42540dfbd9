"""Options of containers and programs, in Python's terms, and the requests that they become."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ketch.errors import InvalidArgument
from ketch.notation import sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of this machine, seen in a container."""

    path: str | os.PathLike[str]
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of the engine, which outlives containers; without a name it goes with its container."""

    name: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A directory in memory; ``size`` is in bytes, or a text such as ``64m``."""

    size: int | str = 0


Source = str | os.PathLike[str] | Bind | Volume | Tmpfs
Port = int | tuple[str, int] | None


class ProgramOptions(TypedDict, total=False):
    """Options of a program: its environment, user and directory, what it reads, and what it may take.

    ``timeout`` is in seconds; ``max_output`` in bytes of both streams; with ``check`` another exit code than 0 is an
    error.
    """

    input: bytes | str | None
    env: Mapping[str, str] | None
    user: str | int | None
    cwd: str | None
    timeout: float | None
    check: bool
    max_output: int | None


class StartOptions(TypedDict, total=False):
    """Options of a program that goes on beside its caller."""

    env: Mapping[str, str] | None
    user: str | int | None
    cwd: str | None
    timeout: float | None


class BoxOptions(TypedDict, total=False):
    """Options of a container: what it can see and reach, and what it may take."""

    env: Mapping[str, str] | None
    user: str | int | None
    cwd: str | None
    name: str | None
    hostname: str | None
    labels: Mapping[str, str] | None
    entrypoint: Sequence[str] | str | None
    network: bool | str
    """``False``: none; ``True``: the default one; else a network's name."""
    ports: Mapping[int | str, Port] | None
    """The container's ports, and those of this machine that lead there: a number, an address with one, None: any."""
    mounts: Mapping[str, Source] | None
    """What is seen at paths of the container: a directory or file of this machine, `Bind`, `Volume`, `Tmpfs`."""
    memory: int | str | None
    cpus: float | None
    pids: int | None
    read_only: bool
    init: bool | None
    """Whether a small init program is the first process, and reaps those that nobody waits for."""
    host_config: Mapping[str, Any] | None
    """Further fields of the API's HostConfig."""
    pull: bool
    """Whether an image that is missing is pulled."""


class RunOptions(ProgramOptions, BoxOptions, total=False):
    """Options of a container that runs one program to its end."""


_OF_PROGRAMS = ("input", "timeout", "check", "max_output")


def split(options: RunOptions) -> tuple[ProgramOptions, BoxOptions]:
    """The options of the program as it is run, and those of its container."""
    program = {name: value for name, value in options.items() if name in _OF_PROGRAMS}
    box = {name: value for name, value in options.items() if name not in _OF_PROGRAMS}
    return program, box  # type: ignore[return-value]


def wants_default_network(options: BoxOptions) -> bool:
    """Whether a container shall have a network, and no certain one."""
    network = options.get("network", False)
    return not isinstance(network, str) and (network or bool(options.get("ports")))


def limits(options: BoxOptions) -> dict[str, str]:
    """The limits that a container shall have, and by which names ``info`` says that an engine has them."""
    named = {"memory": "MemoryLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}
    return {name: fact for name, fact in named.items() if options.get(name) is not None}


def known(options: Mapping[str, Any], *kinds: type) -> None:
    """TypeError for an option that there is not, as a function without such a parameter raises it."""
    names = frozenset().union(*(kind.__annotations__ for kind in kinds))
    for name in options:
        if name not in names:
            raise TypeError(f"unexpected option {name!r}: there are {', '.join(sorted(names))}")


def argv_of(command: Sequence[str] | str) -> list[str]:
    """A program and its arguments as a list; a text is one for the shell."""
    if isinstance(command, str):
        return ["/bin/sh", "-c", command]
    return [os.fspath(word) for word in command]


def bytes_of(size: int | str, what: str) -> int:
    """A number of bytes, also of a text such as ``512m`` (InvalidArgument)."""
    if isinstance(size, int):
        return size
    number = sizes.parse(size.strip())
    if number is None:
        raise InvalidArgument(f"{what} `{size}`: not a number of bytes", hint="use 67108864, 64m or 1g")
    return number


def environment(env: Mapping[str, str] | None) -> list[str]:
    """Variables as the API has them."""
    return [f"{name}={value}" for name, value in (env or {}).items()]


def exec_body(argv: Sequence[str], options: ProgramOptions | StartOptions, *, stdin: bool) -> dict[str, Any]:
    """The request for a program in a running container."""
    return {
        "Cmd": list(argv),
        "Env": environment(options.get("env")),
        "User": _user(options.get("user")),
        "WorkingDir": options.get("cwd") or "",
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Adopts": True,
    }


def box_body(image: str, argv: Sequence[str] | None, options: BoxOptions, *, one_input: bool | None) -> dict[str, Any]:
    """The request for a container; ``one_input``: its input ends with the first who writes to it; None: it has none."""
    body: dict[str, Any] = {
        "Image": image,
        "Env": environment(options.get("env")),
        "User": _user(options.get("user")),
        "WorkingDir": options.get("cwd") or "",
        "Labels": dict(options.get("labels") or {}),
        "OpenStdin": one_input is not None,
        "StdinOnce": bool(one_input),
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host(options),
    }
    if argv is not None:
        body["Cmd"] = list(argv)
    if options.get("hostname"):
        body["Hostname"] = options["hostname"]
    if (entrypoint := options.get("entrypoint")) is not None:
        body["Entrypoint"] = [entrypoint] if isinstance(entrypoint, str) else list(entrypoint)
    ports = {_port(port): _published(where) for port, where in (options.get("ports") or {}).items()}
    if ports:
        body["ExposedPorts"] = {port: {} for port in ports}
        body["HostConfig"]["PortBindings"] = ports
    return body


def _host(options: BoxOptions) -> dict[str, Any]:
    """The part of the request that says what a container can reach, and may take."""
    network = options.get("network") or "none"
    host: dict[str, Any] = {
        "NetworkMode": network,
        "ReadonlyRootfs": bool(options.get("read_only")),
        "Mounts": [_mount(path, source) for path, source in (options.get("mounts") or {}).items()],
    }
    if (memory := options.get("memory")) is not None:
        host["Memory"] = host["MemorySwap"] = bytes_of(memory, "memory")
    if (cpus := options.get("cpus")) is not None:
        host["NanoCpus"] = int(cpus * 1e9)
    if (pids := options.get("pids")) is not None:
        host["PidsLimit"] = pids
    if (init := options.get("init")) is not None:
        host["Init"] = init
    return {**host, **(options.get("host_config") or {})}


def _mount(path: str, source: Source) -> dict[str, Any]:
    if isinstance(source, Tmpfs):
        size = bytes_of(source.size, f"size of the tmpfs at `{path}`")
        return {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"SizeBytes": size} if size else {}}
    if isinstance(source, Volume):
        return {"Type": "volume", "Target": path, "Source": source.name, "ReadOnly": source.read_only}
    bind = source if isinstance(source, Bind) else Bind(source)
    return {"Type": "bind", "Target": path, "Source": os.path.abspath(bind.path), "ReadOnly": bind.read_only}


def _user(user: str | int | None) -> str:
    return "" if user is None else str(user)


def _port(port: int | str) -> str:
    text = str(port)
    return text if "/" in text else f"{text}/tcp"


def _published(where: Port) -> list[dict[str, str]]:
    """The address and port of this machine; loopback, if none is named."""
    address, number = where if isinstance(where, tuple) else ("127.0.0.1", where or 0)
    return [{"HostIp": address, "HostPort": str(number) if number else ""}]
