"""Images' names and platforms: from the command line's form to the API's."""

from __future__ import annotations

import json


def platform_json(text: str) -> str:
    """``os/architecture/variant`` → the API's JSON."""
    return json.dumps(dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)))


def split_tag(name: str) -> tuple[str, str]:
    """(repository, tag) of a name; a port is no tag."""
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, "")
