"""Capabilities of front ends and graphs, as LLBBridge.Ping tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.llb import capabilities
from ketch.buildkit.wire.gateway.caps_pb2 import APICap

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRONTEND = (
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
    "source.policyv1",
)


def of_frontends() -> Sequence[APICap]:
    """The capabilities of calls."""
    return [APICap(ID=name, Enabled=True) for name in _FRONTEND]


def of_graphs() -> Sequence[APICap]:
    """The capabilities of operations in graphs."""
    return [APICap(ID=name, Enabled=True) for name in capabilities.CAPABILITIES]
