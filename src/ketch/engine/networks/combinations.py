"""Combinations of networks: which of them one container can be on, in Docker's words.

The host's network and none at all go with no other one.  Docker says so at the start of a container that was created
with such networks, and when a network is added to one that is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.mode import ModeKind
from ketch.engine.networks.references import find
from ketch.errors import InvalidArgument, NotFound, PermissionDenied, UnclassifiedArgument
from ketch.network.live import WIRED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.engine.model.records import Container
    from ketch.network.manager import NetworkManager
    from ketch.network.model.record import NetworkRecord

NO_OTHERS = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
_NOT_ITS_HOST = "cannot connect container to host network - container must be created in host network mode"
_NOT_WITH_NONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


def check_added(container: Container, record: NetworkRecord, others: Mapping[str, NetworkRecord]) -> None:
    """Check that a container can be on a network, too, beside those that it is on, by name (InvalidArgument)."""
    if record.name == "host" and not container.host.network.is_host:
        raise InvalidArgument(_NOT_ITS_HOST)
    for other in others.values():
        if other.name == record.name:
            return
        if "host" in (other.name, record.name):
            raise InvalidArgument(NO_OTHERS)
        if "none" in (other.name, record.name):
            raise InvalidArgument(_NOT_WITH_NONE)


def check_start(container: Container, records: Mapping[str, NetworkRecord], manager: NetworkManager) -> None:
    """Check that a container can start with its networks, by name (InvalidArgument, NotFound, PermissionDenied)."""
    mode = container.host.network
    for name, record in records.items():
        if mode.kind is ModeKind.NETWORK and name != mode.network:
            try:
                find(manager, mode.network)
            except NotFound as e:
                raise NotFound(
                    f"could not find a network matching network mode {mode.network}: {e.message}", hint=e.hint
                ) from e
        check_added(container, record, records)
        check_kind(record)
        if mode.is_host and record.driver in WIRED:
            raise UnclassifiedArgument(NO_OTHERS, hint=f"with the host's network there is none of {record.name}")


def check_kind(record: NetworkRecord) -> None:
    """Refuse a network that is nothing but settings for others (PermissionDenied)."""
    if record.config_only:
        raise PermissionDenied(
            "cannot create endpoint on configuration-only network",
            hint=f"make a network from it with --config-from {record.name}",
        )
