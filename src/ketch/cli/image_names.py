"""Images' names and platforms as people type them → as the API wants them."""

from __future__ import annotations

import json


def platform_json(text: str) -> str:
    """``os/architecture/variant`` as the API wants it: JSON."""
    return json.dumps(dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)))


def split_tag(name: str) -> tuple[str, str]:
    """(repository, tag) of a name; a port is no tag."""
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, "")
