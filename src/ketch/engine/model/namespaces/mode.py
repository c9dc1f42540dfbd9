"""Namespace modes: a namespace of the container's own, the host's, or another container's.

In Docker's bodies they are words (``host``, ``container:web``); `NamespaceMode` is what such a word means.  A network's
mode may also be the name of a network.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ketch.notation.namespace_modes import container_of

_BRIDGE = "bridge"


class ModeKind(StrEnum):
    """The kinds of modes; the values are Docker's words."""

    DEFAULT = ""
    PRIVATE = "private"
    SHAREABLE = "shareable"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"
    NETWORK = "network"


_WORDS = {str(kind): kind for kind in ModeKind if kind not in (ModeKind.CONTAINER, ModeKind.NETWORK)}


class NamespaceMode(NamedTuple):
    """``reference``: of a CONTAINER which one (an id; as it was asked for, a name), of a NETWORK its name or id."""

    kind: ModeKind
    reference: str = ""

    @classmethod
    def parse(cls, text: str) -> NamespaceMode:
        """The mode of any namespace but a network's; ValueError for a word that is none."""
        if (container := container_of(text)) is not None:
            return cls(ModeKind.CONTAINER, container)
        kind = _WORDS.get(text)
        if kind is None:
            raise ValueError(f"`{text}` is no namespace mode")
        return cls(kind)

    @classmethod
    def of_network(cls, text: str) -> NamespaceMode:
        """The mode of a network namespace; a word without a meaning of its own is a network's name."""
        if (container := container_of(text)) is not None:
            return cls(ModeKind.CONTAINER, container)
        if text in (ModeKind.HOST, ModeKind.NONE):
            return cls(ModeKind(text))
        return cls(ModeKind.NETWORK, _BRIDGE if text in ("", "default") else text)

    @property
    def container(self) -> str | None:
        """The container whose namespace is joined."""
        return self.reference if self.kind is ModeKind.CONTAINER else None

    @property
    def network(self) -> str:
        """The name of the network (Docker has networks called ``host`` and ``none``)."""
        return self.reference if self.kind is ModeKind.NETWORK else str(self.kind)

    @property
    def is_host(self) -> bool:
        """Whether it is the host's."""
        return self.kind is ModeKind.HOST

    @property
    def is_another(self) -> bool:
        """Whether it is the host's or another container's."""
        return self.kind in (ModeKind.HOST, ModeKind.CONTAINER)
