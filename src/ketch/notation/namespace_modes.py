"""Namespace modes as text: ``host``, ``none``, ``container:NAME``; of a network namespace also a network's name."""

from __future__ import annotations

_CONTAINER = "container:"


def container_of(text: str) -> str | None:
    """The container that a mode joins; None for another mode."""
    return text[len(_CONTAINER) :] if text.startswith(_CONTAINER) else None


def of_container(container_id: str) -> str:
    """The mode of joining a container's namespace."""
    return _CONTAINER + container_id


def is_network(text: str) -> bool:
    """Whether the mode of a network namespace means a network: neither the host's, nor none, nor a container's."""
    return text not in ("host", "none") and not text.startswith(_CONTAINER)
