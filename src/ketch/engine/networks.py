"""The three networks that always exist, in the engine's words: ``bridge``, ``host`` and ``none``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import NotFound

if TYPE_CHECKING:
    from ketch.engine.model import Container


Strings = list[str]


class Network(msgspec.Struct, kw_only=True):
    """One network; ``subnet``/``gateway`` are empty where the driver has none."""

    id: str
    name: str
    driver: str
    created: int
    subnet: str = ""
    gateway: str = ""
    bridge: str = ""
    mtu: int = 0


def network_id(salt: str, name: str) -> str:
    """A stable 64-digit id for a built-in network of one daemon."""
    return hashlib.sha256(f"{salt}/{name}".encode()).hexdigest()


def kind(mode: str) -> str:
    """What a ``NetworkMode`` asks for: ``bridge``, ``none``, ``host``, ``container``, or the mode itself: a name."""
    if mode in ("", "default", "bridge"):
        return "bridge"
    if mode in ("none", "host"):
        return mode
    if mode.startswith("container:"):
        return "container"
    return mode


def check(kind_: str) -> None:
    """NotFound for a network that does not exist: said at the start, as Docker does (a create would have it pull)."""
    if kind_ not in ("bridge", "none", "host", "container"):
        raise NotFound(f"network {kind_} not found", hint="use bridge, host, none or container:NAME")


class NetworkRegistry:
    """Look-up of the built-in networks by name or id."""

    def __init__(self, networks: list[Network]) -> None:
        self._networks = networks

    def list(self) -> list[Network]:
        """All of them."""
        return list(self._networks)

    def get(self, ref: str) -> Network:
        """By name, id, or id prefix (NotFound)."""
        for network in self._networks:
            if ref == network.name or (ref and network.id.startswith(ref)):
                return network
        raise NotFound(f"network {ref} not found")

    @staticmethod
    def of(container: Container) -> Strings:
        """Names of the networks that a container is on."""
        return list(container.networks)
