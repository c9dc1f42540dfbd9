"""The bodies of requests about containers, and their conversion to the engine's types."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ketch.api.wire.networks import EndpointBody, endpoint
from ketch.engine.model.records import ContainerConfig, HostConfig, Wire
from ketch.engine.model.requests import Changes, NewContainer, Resources, Update
from ketch.errors import InvalidArgument


class NetworkingConfig(Wire):
    """Networks to join, by name or id."""

    endpoints_config: dict[str, EndpointBody | None] | None = None


class CreateBody(ContainerConfig, kw_only=True):
    """The body of ``create``: the configuration with the host's and the networks' beside it."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None

    @property
    def says_anything(self) -> bool:
        """Whether any field of the configuration has another value than none: an empty one is an error."""
        return msgspec.convert(self, ContainerConfig, from_attributes=True) != ContainerConfig()

    @property
    def endpoints(self) -> dict[str, EndpointBody | None]:
        """The settings for the networks, to be changed in place."""
        networking = self.networking_config = self.networking_config or NetworkingConfig()
        found = networking.endpoints_config = networking.endpoints_config or {}
        return found

    def name_the_default_network(self, host: HostConfig) -> None:
        """Give the network called ``default`` its name, where it is the container's mode as well; elsewhere it is none.

        A mode that is left open is that one.
        """
        if host.network_mode in ("", "default"):
            host.network_mode = "bridge"
            if "default" in self.endpoints:
                self.endpoints["bridge"] = self.endpoints.pop("default")

    def request(self, name: str | None, platform: str | None, *, below_read_only: bool = True) -> NewContainer:
        """The engine's request of this body (InvalidArgument for a network with null in the place of settings)."""
        for network, asked in self.endpoints.items():
            if asked is None:
                raise InvalidArgument(f"invalid config for network {network}: EndpointsConfig is nil")
        return NewContainer(
            config=msgspec.convert(self, ContainerConfig, from_attributes=True),
            host=self.host_config or HostConfig(),
            networking={key: endpoint(asked) for key, asked in self.endpoints.items()},
            name=name,
            platform=platform,
            below_read_only=below_read_only,
        )


class UpdateBody(Resources, kw_only=True):
    """The body of ``update``: Docker's limits, and beside them Ketch's own changes for the next start."""

    GO_NAME: ClassVar[str] = "UpdateConfig"

    changes: Changes | None = None
    pending_reset: bool = False

    def update(self) -> Update:
        """The engine's request of this body."""
        resources = msgspec.convert(self, Resources, from_attributes=True)
        return Update(resources=resources, changes=self.changes, pending_reset=self.pending_reset)
