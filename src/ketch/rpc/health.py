"""gRPC's health checking: a server that answers is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ketch.rpc.method import Method, Service
from ketch.rpc.server import unary
from ketch.rpc.wire import health_pb2
from ketch.rpc.wire.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.rpc.server import Handlers


class HealthService(Service, of=health_pb2.DESCRIPTOR.services_by_name["Health"]):
    """grpc.health.v1.Health."""

    Check: ClassVar[Method[HealthCheckRequest, HealthCheckResponse]]
    Watch: ClassVar[Method[HealthCheckRequest, HealthCheckResponse]]


async def _check(_request: HealthCheckRequest, _metadata: Mapping[str, Sequence[str]]) -> HealthCheckResponse:
    return HealthCheckResponse(status=HealthCheckResponse.SERVING)


def handlers() -> Handlers:
    """The service's handlers."""
    return {HealthService.Check.path: (HealthService.Check, unary(_check))}
