"""Entitlements: what commands of a graph ask for that the one who builds must have allowed.

A Dockerfile may come from anybody; with these its commands reach what containers are kept from (BuildKit's
util/entitlements).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.errors import SolveError
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order
from ketch.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ketch.build.llb.vertex import Edge, Vertex

NETWORK_HOST = "network.host"
SECURITY_INSECURE = "security.insecure"


def of_network(name: str) -> str:
    """The entitlement to run commands in one of the engine's networks, which only the one who builds can name."""
    return f"network:{name}"


def granted(asked: Collection[str], denied: Collection[str]) -> set[str]:
    """The entitlements that a client has given (PermissionDenied: the daemon's settings deny one)."""
    for name in sorted(asked):
        if name.partition("=")[0] in denied:
            raise PermissionDenied(
                f"granting entitlement {name} is not allowed by build daemon configuration",
                hint="builder.entitlements of daemon.json says so",
            )
    return set(asked)


def require(name: str, allowed: Collection[str]) -> None:
    """Refuse what is not allowed (PermissionDenied)."""
    if name not in allowed:
        raise PermissionDenied(f"{name} is not allowed", hint=f"give --allow {name}")


def check(result: Edge, allowed: Collection[str]) -> None:
    """Refuse a graph that asks for more than is allowed (SolveError of the vertex, with PermissionDenied)."""
    for vertex in in_order([result.vertex]):
        for name in _wanted(vertex):
            try:
                require(name, allowed)
            except PermissionDenied as e:
                error = SolveError(vertex.digest, vertex.name, e)
                error.message = f"failed to load LLB: {e.message}"  # BuildKit checks when it reads a graph
                raise error from e


def _wanted(vertex: Vertex) -> Iterator[str]:
    if vertex.kind != "exec":
        return
    if vertex.op.exec.security == pb.INSECURE:
        yield SECURITY_INSECURE
    if vertex.op.exec.network == pb.HOST:
        yield NETWORK_HOST
    if name := vertex.op.exec.network_name:
        yield of_network(name)
