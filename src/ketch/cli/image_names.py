"""Images' names and platforms: from the command line's form to the API's."""

from __future__ import annotations

from ketch.errors import InvalidArgument
from ketch.notation import documents


def platform_json(text: str) -> str:
    """``os/architecture/variant`` → the API's JSON."""
    return documents.dumps(dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)))


def split_tag(name: str) -> tuple[str, str]:
    """(repository, tag) of a name; a port is no tag (InvalidArgument: two tags)."""
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail and ":" in (last := head.rpartition("/")[2]) and "@" not in last:
        raise InvalidArgument(f"invalid reference format: `{name}` has two tags")
    return (head, tail) if colon and "/" not in tail else (name, "")
